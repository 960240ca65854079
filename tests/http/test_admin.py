"""What the emulator offers beyond a hub's API: the event log, and cloud-to-device messages."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import pytest

from emulator import Emulator
from tests.devices import connect_device
from tests.http.support import (
    ANY,
    check_error,
    device_token,
    https_connection,
    policy_token,
    read,
)
from tests.messages import bodies, pending, read_events, send, try_to_send
from tests.support import API_VERSION, Device, Service, trust

_EVENTS = "/_emulator/events"

Report = Callable[..., None]


@pytest.fixture
def report(emulator: Emulator) -> Iterator[Report]:
    """Sends a device's telemetry."""
    connection = https_connection(emulator)

    def post(device: Device, *texts: str) -> None:
        headers = {"Authorization": device_token(emulator, device)}
        path = f"/devices/{device.id}/messages/events?api-version={API_VERSION}"
        for text in texts:
            connection.request("POST", path, body=text.encode(), headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 204

    yield post
    connection.close()


def numbers(service: Service, device: Device) -> list[int]:
    return [event["sequenceNumber"] for event in read_events(service, device.id)]


# --- the log as JSON


def test_an_event_is_an_object(service: Service, report: Report, device: Device) -> None:
    report(device, "one")
    (event,) = read(service, _EVENTS, device=device.id)
    assert list(event) == [
        *("sequenceNumber", "enqueuedTime", "partitionId", "partitionSequenceNumber", "offset"),
        *("deviceId", "moduleId", "systemProperties"),
        *("properties", "annotations", "body"),
    ]
    assert (event["deviceId"], event["moduleId"], event["body"]) == (device.id, None, "one")


def test_the_log_can_be_read_for_one_device_and_from_a_number_on(
    service: Service, report: Report, device: Device, other: Device
) -> None:
    report(device, "1")
    report(other, "2")
    report(device, "3")
    assert bodies(service, device.id) == ["1", "3"]
    first, last = numbers(service, device)
    for params, expected in (
        ({"from": str(first)}, ["1", "2", "3"]),
        ({"device": device.id, "from": str(first + 1)}, ["3"]),
        ({"from": str(last + 1)}, []),
        ({"from": "9" * 40}, []),
        ({"from": "0" * 40 + str(last + 1)}, []),
        ({"device": other.id, "api-version": "1999-01-01"}, ["2"]),
    ):
        assert [event["body"] for event in read(service, _EVENTS, **params)] == expected
    after_first: dict[str, str | None] = {"Last-Event-ID": str(first)}
    answer = service.request("GET", _EVENTS, headers=after_first)
    assert [event["body"] for event in answer.json()] == ["2", "3"]


def test_the_log_can_be_read_in_pages_and_by_partition(
    service: Service, report: Report, device: Device, other: Device
) -> None:
    report(device, "1", "2")
    report(other, "3")
    report(device, "4", "5")
    start, found = numbers(service, device)[0], list[str]()
    while page := read(service, _EVENTS, **{"device": device.id, "from": str(start), "top": "3"}):
        assert len(page) <= 3
        found += [event["body"] for event in page]
        start = page[-1]["sequenceNumber"] + 1
    assert found == ["1", "2", "4", "5"]
    assert read(service, _EVENTS, top="0") == []
    assert len(read(service, _EVENTS, top="9" * 30)) == len(read(service, _EVENTS))
    (event,) = read(service, _EVENTS, device=device.id, top="1")
    own = read(service, _EVENTS, partition=event["partitionId"], device=device.id)
    assert [each["body"] for each in own] == ["1", "2", "4", "5"]
    places = [(each["partitionSequenceNumber"], int(each["offset"])) for each in own]
    assert places == sorted(set(places))
    parts = [read(service, _EVENTS, partition=str(number)) for number in range(4)]
    assert sum(map(len, parts)) == len(read(service, _EVENTS))


@pytest.mark.parametrize("query", ["partition=4", "partition=", "top=-1", "top=x", "top="])
def test_a_page_and_a_partition_must_be_valid(service: Service, query: str) -> None:
    answer = service.request("GET", f"{_EVENTS}?{query}", params={})
    check_error(answer, 400, "ArgumentInvalid")


def test_an_unknown_device_has_no_events(
    service: Service, janitor: Service, report: Report, device: Device
) -> None:
    for unknown in (f"{device.id}-unknown", device.id.upper(), "", "a/b"):
        answer = service.request("GET", _EVENTS, params={"device": unknown})
        assert check_error(answer, 404, "DeviceNotFound") == (unknown or "DeviceNotFound")
    # What a deleted device has sent can still be read.
    report(device, "last words")
    assert janitor.request("DELETE", f"/devices/{device.id}", headers=ANY).status_code == 204
    assert bodies(service, device.id) == ["last words"]


@pytest.mark.parametrize(
    "query", ["devices=x", "Device=x", "from=0&from=1", "from=0&device=a&device=a", "limit=", "x"]
)
def test_a_parameter_is_known_and_there_once(service: Service, device: Device, query: str) -> None:
    answer = service.request("GET", f"{_EVENTS}?{query}", params={})
    check_error(answer, 400, "ArgumentInvalid")
    answer = service.request("POST", f"{path_of(device)}?{query}", json={}, params={})
    check_error(answer, 400, "ArgumentInvalid")
    assert pending(service, device) == 0


@pytest.mark.parametrize("count", [1, 20, 50])
def test_a_long_answer_is_sent_in_parts(
    service: Service, report: Report, device: Device, count: int
) -> None:
    report(device, *(f"{number}" + "x" * 10_000 for number in range(count)))
    answer = service.request("GET", _EVENTS, params={"device": device.id})
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Content-Length" not in answer.headers
    found = [event["body"].strip("x") for event in answer.json()]
    assert found == [str(number) for number in range(count)]


@pytest.mark.parametrize("start", ["", "-1", "x", "1.5", "٣"])
def test_the_start_must_be_a_number(service: Service, start: str) -> None:
    answer = service.request("GET", _EVENTS, params={"from": start})
    check_error(answer, 400, "ArgumentInvalid")
    if start.isascii():
        answer = service.request("GET", _EVENTS, headers={"Last-Event-ID": start})
        check_error(answer, 400, "ArgumentInvalid")


# --- the log as server-sent events


class Stream:
    """A reader of server-sent events."""

    def __init__(
        self, emulator: Emulator, query: str = "", headers: dict[str, str] | None = None
    ) -> None:
        self._connection = https_connection(emulator)
        usual = {"Authorization": policy_token(emulator, "service"), "Accept": "text/event-stream"}
        self._connection.request("GET", _EVENTS + query, headers=usual | (headers or {}))
        self.response = self._connection.getresponse()

    def next(self) -> dict[str, Any]:
        """Wait for the next event; its id is its sequence number."""
        for _ in range(4):
            if not (line := self._line()).startswith(":"):
                break
            assert self._line() == ""  # after a comment
        name, _, event_id = line.partition(": ")
        assert name == "id"
        field, _, data = self._line().partition(": ")
        assert field == "data"
        assert self._line() == ""
        event: dict[str, Any] = json.loads(data)
        assert event["sequenceNumber"] == int(event_id)
        return event

    def bodies(self, count: int) -> list[str]:
        """Wait for the bodies of the next events."""
        return [self.next()["body"] for _ in range(count)]

    def _line(self) -> str:
        return self.response.readline().decode().rstrip("\n")

    def close(self) -> None:
        self.response.close()
        self._connection.close()


OpenStream = Callable[..., Stream]


@pytest.fixture
def stream(emulator: Emulator) -> Iterator[OpenStream]:
    """Opens streams; the fixture closes them."""
    with ExitStack() as stack:

        def open_stream(query: str = "", headers: dict[str, str] | None = None) -> Stream:
            opened = Stream(emulator, query, headers)
            stack.callback(opened.close)
            return opened

        yield open_stream


def test_a_stream_sends_old_and_new_events(
    service: Service, stream: OpenStream, report: Report, device: Device, other: Device
) -> None:
    report(device, "before")
    following = stream(f"?device={device.id}")
    assert following.response.status == 200
    assert following.response.headers["Content-Type"] == "text/event-stream"
    assert following.response.headers["Cache-Control"] == "no-store"
    assert following.next() == read_events(service, device.id)[0]
    report(other, "of another")
    report(device, "after\nwith a second line", "last")
    assert following.bodies(2) == ["after\nwith a second line", "last"]


def test_a_stream_from_the_end_has_new_events_only(
    service: Service, stream: OpenStream, report: Report, device: Device
) -> None:
    report(device, "before")
    following = stream(f"?device={device.id}&from=end")
    assert following.response.readline() == b": events follow\n"
    report(device, "after")
    assert following.response.readline() == b"\n"
    assert following.bodies(1) == ["after"]
    page = service.request("GET", _EVENTS, params={"device": device.id, "from": "end"})
    assert page.json() == []


def test_an_idle_stream_begins_at_once(
    service: Service, stream: OpenStream, report: Report, device: Device
) -> None:
    report(device, "0")
    start = numbers(service, device)[0] + 1
    assert stream(f"?from={start}").response.readline() == b": events follow\n"


def test_a_stream_that_ends_does_not_disturb_the_others(
    stream: OpenStream, service: Service, report: Report, device: Device, other: Device
) -> None:
    report(device, "0")
    start = numbers(service, device)[0] + 1
    leaving, everything = (stream(f"?from={start}") for _ in range(2))
    of_one = stream(f"?from={start}&device={other.id}")
    report(device, "1")
    assert leaving.bodies(1) == ["1"]
    leaving.close()
    report(other, "2")
    report(device, "3")
    assert everything.bodies(3) == ["1", "2", "3"]
    assert of_one.bodies(1) == ["2"]


def test_a_stream_continues_after_the_last_event_that_its_reader_has(
    stream: OpenStream, service: Service, report: Report, device: Device
) -> None:
    report(device, "1", "2", "3")
    last = {"Last-Event-ID": str(numbers(service, device)[0])}
    again = stream(f"?device={device.id}&from=0", last)
    assert again.bodies(2) == ["2", "3"]
    report(device, "4")
    assert again.bodies(1) == ["4"]


def test_a_stream_of_an_unknown_device_is_refused(stream: OpenStream) -> None:
    assert stream("?device=unknown").response.status == 404


def test_a_stream_with_an_invalid_start_is_refused_as_json(stream: OpenStream) -> None:
    response = stream("?from=x").response
    assert response.status == 400
    assert response.headers["iothub-errorcode"] == "ArgumentInvalid"
    assert json.loads(response.read())["Message"].startswith("ErrorCode:ArgumentInvalid;")


def test_a_stream_sends_a_large_event_as_one_event(
    stream: OpenStream, report: Report, device: Device
) -> None:
    report(device, "ä" * 100_000)
    assert stream(f"?device={device.id}").bodies(1) == ["ä" * 100_000]


# --- sending


def path_of(device: Device) -> str:
    return f"/_emulator/devices/{device.id}/messages"


def test_the_emulators_own_routes_need_no_api_version(service: Service, device: Device) -> None:
    assert service.request("GET", _EVENTS, params={"device": device.id}).json() == []
    answer = service.request("POST", path_of(device), json={"body": "x"}, params={})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("body", "received"),
    [
        ("text", b"text"),
        ("", b""),
        ("ä\n", "ä\n".encode()),
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        (0, b"0"),
        (None, b"null"),
    ],
)
def test_a_body_is_sent_as_text_or_as_json(
    emulator: Emulator, service: Service, device: Device, body: Any, received: bytes
) -> None:
    send(service, device, body)
    path = f"/devices/{device.id}/messages/deviceBound"
    headers: dict[str, str | None] = {"Authorization": device_token(emulator, device)}
    answer = service.request("GET", path, headers=headers)
    assert (answer.status_code, answer.content) == (200, received)


def test_a_body_is_sent_as_any_bytes(emulator: Emulator, service: Service, device: Device) -> None:
    assert try_to_send(service, device, bodyBase64="/wCA").status_code == 204
    path = f"/devices/{device.id}/messages/deviceBound"
    headers: dict[str, str | None] = {"Authorization": device_token(emulator, device)}
    assert service.request("GET", path, headers=headers).content == b"\xff\x00\x80"
    for members in ({"bodyBase64": "%"}, {"bodyBase64": "/wCA", "body": "x"}, {"bodyBase64": 1}):
        assert try_to_send(service, device, **members).status_code == 400


def test_a_message_may_be_empty(service: Service, device: Device) -> None:
    assert try_to_send(service, device).status_code == 204
    assert pending(service, device) == 1


@pytest.mark.parametrize("data", [b"", b"[]", b"null"])
def test_a_message_must_be_a_json_object(service: Service, device: Device, data: bytes) -> None:
    check_error(service.request("POST", path_of(device), data=data), 400, "DeserializationError")
    assert pending(service, device) == 0


@pytest.mark.parametrize(
    "members",
    [
        {"properties": []},
        {"properties": None},
        {"properties": {"a": 1}},
        {"properties": {"ä": "a"}},
        {"properties": {"iothub-ack": "sometimes"}},
        {"messageId": 5},
        {"correlationId": "a b"},
        {"contentType": None},
        {"expiryTimeUtc": "2026-13-01T00:00:00Z"},
        {"ack": "sometimes"},
        {"ack": None},
        {"properties": {"a": True}},
        {"properties": {"a": ["x"]}},
        {"properties": {"iothub-ack": None}},
        {"to": None},
        {"to": ""},
        {"to": "/devices/another/messages/devicebound"},
        {"to": "/devices/messages/devicebound"},
    ],
)
def test_an_invalid_member_is_refused(
    service: Service, device: Device, members: dict[str, Any]
) -> None:
    check_error(try_to_send(service, device, **members), 400, "ArgumentInvalid")
    assert pending(service, device) == 0


@pytest.mark.parametrize(
    "members",
    [
        {"text": "x"},
        {"body": "x", "message": "x"},
        {"body": "x", "property": {}},
        {"systemProperties": {}},
        {"": 1},
        {"deviceId": "x"},
    ],
)
def test_an_unknown_member_is_refused(
    service: Service, device: Device, members: dict[str, Any]
) -> None:
    text = check_error(try_to_send(service, device, **members), 400, "GenericBadRequest")
    assert "contentEncoding" in text  # the known members are named
    assert pending(service, device) == 0


def test_a_property_without_a_value_arrives_as_its_bare_name(
    emulator: Emulator, service: Service, device: Device
) -> None:
    properties = {"bare": None, "empty": "", "Colour": "blue"}
    members = {"Body": "x", "PROPERTIES": properties, "MessageId": "m"}
    assert try_to_send(service, device, **members).status_code == 204
    topic = f"devices/{device.id}/messages/devicebound/"
    with connect_device(
        device.connection_string, emulator.mqtt_port, trust(emulator), f"{topic}#"
    ) as wire:
        to = quote(f"/devices/{device.id}/messages/deviceBound", safe="")
        bag = f"%24.mid=m&%24.to={to}&bare&empty=&Colour=blue"
        wire.expect_publish(f"{topic}{bag}", b"x")


def test_a_device_id_is_decoded(service: Service, emulator: Emulator) -> None:
    device_id, encoded = "a#b%c+d", "a%23b%25c%2Bd"
    emulator.register_device(device_id)
    path = f"/_emulator/devices/{encoded}/messages"
    assert service.request("POST", path, json={"body": "x"}).status_code == 204
    assert service.request("DELETE", f"/devices/{encoded}/commands").json() == {
        "totalMessagesPurged": 1,
        "deviceId": device_id,
        "moduleId": None,
    }
