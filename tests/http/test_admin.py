"""What the emulator offers beyond a hub's API: the event log, and cloud-to-device messages."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator import Emulator
from tests.http.support import check_error
from tests.messages import pending, send, try_to_send
from tests.support import API_VERSION, Device, Service, sas_token

_EVENTS = "/_emulator/events"
_PATIENCE = 10.0


Report = Callable[..., None]


@pytest.fixture
def report(emulator: Emulator) -> Iterator[Report]:
    """Sends a device's telemetry."""
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    connection = http.client.HTTPSConnection(
        emulator.host_name, emulator.https_port, context=context, timeout=_PATIENCE
    )

    def post(device: Device, *bodies: str) -> None:
        audience = f"{emulator.host_name}/devices/{device.id}"
        headers = {"Authorization": sas_token(audience, device.key)}
        path = f"/devices/{device.id}/messages/events?api-version={API_VERSION}"
        for body in bodies:
            connection.request("POST", path, body=body.encode(), headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 204

    yield post
    connection.close()


@pytest.fixture
def other(emulator: Emulator, device: Device) -> Device:
    device_id = f"{device.id}-2"
    return Device(device_id, device.key, emulator.register_device(device_id))


def read(service: Service, **params: str) -> list[dict[str, Any]]:
    answer = service.request("GET", _EVENTS, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    events: list[dict[str, Any]] = answer.json()
    return events


def bodies(events: list[dict[str, Any]]) -> list[str]:
    return [event["body"] for event in events]


def number(event: dict[str, Any]) -> int:
    sequence_number = event["sequenceNumber"]
    assert isinstance(sequence_number, int)
    return sequence_number


# --- the log as JSON


def test_an_event_is_an_object(service: Service, report: Report, device: Device) -> None:
    report(device, "one")
    (event,) = read(service, device=device.id)
    assert list(event) == [
        "sequenceNumber",
        "enqueuedTime",
        "deviceId",
        "moduleId",
        "systemProperties",
        "properties",
        "annotations",
        "body",
    ]
    assert (event["deviceId"], event["moduleId"], event["body"]) == (device.id, None, "one")


def test_the_log_is_read_of_one_device_and_from_a_number_on(
    service: Service, report: Report, device: Device, other: Device
) -> None:
    report(device, "1")
    report(other, "2")
    report(device, "3")
    ours = read(service, device=device.id)
    assert bodies(ours) == ["1", "3"]
    first, last = map(number, ours)
    assert bodies(read(service, **{"from": str(first)})) == ["1", "2", "3"]
    assert bodies(read(service, device=device.id, **{"from": str(first + 1)})) == ["3"]
    assert read(service, **{"from": str(last + 1)}) == []
    assert read(service, device=f"{device.id}-unknown") == []
    assert read(service, **{"from": "9" * 40}) == []
    after_first: dict[str, str | None] = {"Last-Event-ID": str(first)}
    answer = service.request("GET", _EVENTS, params={}, headers=after_first)
    assert bodies(answer.json()) == ["2", "3"]


@pytest.mark.parametrize("start", ["", "-1", "x", "1.5", "٣", " 1"])
def test_a_start_that_is_no_number_is_refused(service: Service, start: str) -> None:
    answer = service.request("GET", _EVENTS, params={"from": start})
    check_error(answer, 400, "ArgumentInvalid")
    if start.isascii() and not start.startswith(" "):
        headers: dict[str, str | None] = {"Last-Event-ID": start}
        answer = service.request("GET", _EVENTS, params={}, headers=headers)
        check_error(answer, 400, "ArgumentInvalid")


# --- the log as server-sent events


class Stream:
    """A reader of server-sent events."""

    def __init__(
        self, emulator: Emulator, query: str = "", headers: dict[str, str] | None = None
    ) -> None:
        context = ssl.create_default_context(cafile=str(emulator.ca_file))
        self._connection = http.client.HTTPSConnection(
            emulator.host_name, emulator.https_port, context=context, timeout=_PATIENCE
        )
        key, _ = emulator.settings.key_pair("service")
        usual = {
            "Authorization": sas_token(emulator.https_host, key, policy="service"),
            "Accept": "text/event-stream",
        }
        self._connection.request("GET", _EVENTS + query, headers=usual | (headers or {}))
        self.response = self._connection.getresponse()

    def next(self) -> dict[str, Any]:
        """Wait for the next event; its id is its sequence number."""
        while (line := self._line()).startswith(":"):  # a comment, such as "I'm alive"
            assert self._line() == ""
        name, _, event_id = line.partition(": ")
        assert name == "id"
        field, _, data = self._line().partition(": ")
        assert field == "data"
        assert self._line() == ""
        event: dict[str, Any] = json.loads(data)
        assert event["sequenceNumber"] == int(event_id)
        return event

    def _line(self) -> str:
        return self.response.readline().decode().rstrip("\n")

    def close(self) -> None:
        self.response.close()
        self._connection.close()


@pytest.fixture
def stream(emulator: Emulator) -> Iterator[Callable[..., Stream]]:
    streams = []

    def open_stream(query: str = "", headers: dict[str, str] | None = None) -> Stream:
        streams.append(Stream(emulator, query, headers))
        return streams[-1]

    yield open_stream
    for each in streams:
        each.close()


def test_a_stream_tells_what_is_there_and_what_comes(
    service: Service,
    stream: Callable[..., Stream],
    report: Report,
    device: Device,
    other: Device,
) -> None:
    report(device, "before")
    following = stream(f"?device={device.id}")
    assert following.response.status == 200
    assert following.response.headers["Content-Type"] == "text/event-stream"
    assert following.response.headers["Cache-Control"] == "no-store"
    assert following.next() == read(service, device=device.id)[0]
    report(other, "of another")
    report(device, "after\nwith a second line", "last")
    assert [following.next()["body"] for _ in range(2)] == ["after\nwith a second line", "last"]


def test_streams_are_read_at_the_same_time_and_one_that_leaves_disturbs_none(
    stream: Callable[..., Stream], service: Service, report: Report, device: Device, other: Device
) -> None:
    report(device, "0")
    start = number(read(service, device=device.id)[0]) + 1
    leaving, everything = (stream(f"?from={start}") for _ in range(2))
    of_one = stream(f"?from={start}&device={other.id}")
    report(device, "1")
    assert leaving.next()["body"] == "1"
    leaving.close()
    report(other, "2")
    report(device, "3")
    assert [everything.next()["body"] for _ in range(3)] == ["1", "2", "3"]
    assert of_one.next()["body"] == "2"


def test_a_stream_goes_on_after_the_last_event_that_its_reader_has(
    stream: Callable[..., Stream], service: Service, report: Report, device: Device
) -> None:
    report(device, "1", "2", "3")
    first = number(read(service, device=device.id)[0])
    again = stream(f"?device={device.id}&from=0", {"Last-Event-ID": str(first)})
    assert [again.next()["body"] for _ in range(2)] == ["2", "3"]
    report(device, "4")
    assert again.next()["body"] == "4"


def test_a_stream_with_a_bad_start_is_refused_as_json(stream: Callable[..., Stream]) -> None:
    response = stream("?from=x").response
    assert response.status == 400
    assert response.headers["iothub-errorcode"] == "ArgumentInvalid"
    assert json.loads(response.read())["Message"].startswith("ErrorCode:ArgumentInvalid;")


def test_a_stream_of_a_large_event_is_one_event(
    stream: Callable[..., Stream], report: Report, device: Device
) -> None:
    report(device, "ä" * 100_000)
    assert stream(f"?device={device.id}").next()["body"] == "ä" * 100_000


# --- who may


@pytest.mark.parametrize("policy", ["device", "registryRead", "registryReadWrite"])
def test_a_policy_without_the_right_of_a_service_may_not(
    emulator: Emulator, service: Service, device: Device, policy: str
) -> None:
    caller = Service(emulator, policy)
    check_error(caller.request("GET", _EVENTS), 401, "IotHubUnauthorizedAccess")
    check_error(try_to_send(caller, device, body="x"), 401, "IotHubUnauthorizedAccess")
    caller.close()
    assert pending(service, device) == 0


def test_nobody_may_without_a_token(
    service: Service, stream: Callable[..., Stream], emulator: Emulator, device: Device
) -> None:
    own = sas_token(f"{emulator.host_name}/devices/{device.id}", device.key)
    for token in (None, "", "x", own):
        headers: dict[str, str | None] = {"Authorization": token}
        answer = service.request("GET", _EVENTS, headers=headers)
        check_error(answer, 401, "IotHubUnauthorizedAccess")
        path = f"/_emulator/devices/{device.id}/messages"
        answer = service.request("POST", path, json={"body": "x"}, headers=headers)
        check_error(answer, 401, "IotHubUnauthorizedAccess")
    assert stream(headers={"Authorization": "x"}).response.status == 401
    assert pending(service, device) == 0


def test_the_policy_of_a_service_is_enough_and_needs_no_api_version(
    emulator: Emulator, device: Device
) -> None:
    caller = Service(emulator, "service")
    assert caller.request("GET", _EVENTS, params={"device": device.id}).json() == []
    path = f"/_emulator/devices/{device.id}/messages"
    answer = caller.request("POST", path, json={"body": "x"}, params={})
    assert (answer.status_code, answer.content) == (204, b"")
    caller.close()


# --- sending


@pytest.mark.parametrize(
    ("body", "received"),
    [
        ("text", b"text"),
        ("", b""),
        ("ä\n", "ä\n".encode()),
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        ([], b"[]"),
        (0, b"0"),
        (None, b"null"),
    ],
)
def test_a_body_is_sent_as_text_or_as_json(
    emulator: Emulator, service: Service, device: Device, body: Any, received: bytes
) -> None:
    send(service, device, body)
    headers = {"Authorization": sas_token(f"{emulator.host_name}/devices/{device.id}", device.key)}
    path = f"/devices/{device.id}/messages/deviceBound"
    answer = service.request("GET", path, headers=dict(headers))
    assert (answer.status_code, answer.content) == (200, received)


def test_a_message_may_be_empty(service: Service, device: Device) -> None:
    assert try_to_send(service, device).status_code == 204
    assert pending(service, device) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"text"', b"null", b"\xff"])
def test_a_request_that_is_no_json_object_is_refused(
    service: Service, device: Device, data: bytes
) -> None:
    path = f"/_emulator/devices/{device.id}/messages"
    check_error(service.request("POST", path, data=data), 400, "DeserializationError")
    assert pending(service, device) == 0


@pytest.mark.parametrize(
    "members",
    [
        {"properties": []},
        {"properties": None},
        {"properties": {"a": 1}},
        {"properties": {"a": None}},
        {"properties": {"": "a"}},
        {"properties": {"ä": "a"}},
        {"messageId": 5},
        {"correlationId": "a b"},
        {"contentType": None},
        {"expiryTimeUtc": 5},
        {"expiryTimeUtc": "2026-13-01T00:00:00Z"},
        {"ack": "sometimes"},
        {"ack": None},
        {"properties": {"iothub-ack": "sometimes"}},
    ],
)
def test_a_bad_member_is_refused(service: Service, device: Device, members: dict[str, Any]) -> None:
    check_error(try_to_send(service, device, **members), 400, "ArgumentInvalid")
    assert pending(service, device) == 0


def test_a_device_id_is_decoded(service: Service, emulator: Emulator) -> None:
    device_id = "a#b%c+d"
    emulator.register_device(device_id)
    path = "/_emulator/devices/a%23b%25c%2Bd/messages"
    assert service.request("POST", path, json={"body": "x"}).status_code == 204
    assert service.request("DELETE", "/devices/a%23b%25c%2Bd/commands").json() == {
        "totalMessagesPurged": 1,
        "deviceId": device_id,
        "moduleId": None,
    }
