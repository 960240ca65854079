"""What happens in a hub, as server-sent events."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
import requests
from msgspec.structs import replace

from emulator import Emulator
from emulator.event_loop import call
from emulator.http.web import live
from emulator.hub.access.refusals import Refused
from tests.http.support import MethodDevice, echo, invoke, new_id, report_upload
from tests.hub.uploads.shelf import Shelf
from tests.messages import put_module
from tests.support import PATIENCE, Device, Service, send_events, trust, wait_until
from tests.web.support import CHANGES, Visitor


def test_a_stream_of_a_device_shows_what_happens_to_it(
    emulator: Emulator,
    user: Visitor,
    service: Service,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf()
    monkeypatch.setattr(emulator.hub.uploads, "_storage", shelf)
    with user.stream(f"?device={device.id}") as stream:
        twin = stream.wait_for("Twin")["twin"]
        assert (twin["deviceId"], twin["version"]) == (device.id, 2)
        with MethodDevice(emulator, device, echo) as connected:
            stream.wait_for("Connected")
            assert invoke(service, device.id, payload={"a": 1.0}).status_code == 200
            called, ended = stream.wait_for("MethodCalled"), stream.wait_for("MethodEnded")
            assert (called["name"], called["payload"]["text"]) == ("m", '{"a":1.0}')
            assert called["requestId"] == ended["requestId"]
            assert (ended["status"], ended["payload"]["text"]) == (200, '{"a":1.0}')
            assert called["time"] <= ended["time"]
            connected.report('{"rebootTime": "now"}')
            change = stream.wait_for("TwinChanged")
            assert (change["reported"], change["desired"]) == ({"rebootTime": "now"}, None)
            reported = stream.wait_for("Twin")["twin"]["properties"]["reported"]
            assert reported["rebootTime"] == "now"
        stream.wait_for("Disconnected")
        send_events(emulator, device, "hello", colour="red")
        message = stream.wait_for("Telemetry")
        assert message["body"] == {"text": "hello", "size": 5}
        assert message["properties"] == {"colour": "red"}
        path = f"/_emulator/devices/{device.id}/messages"
        assert service.request("POST", path, json={"body": "to you", "messageId": "1"}).ok
        assert stream.wait_for("CommandSent")["body"]["text"] == "to you"
        service.request("DELETE", f"/devices/{device.id}/commands")
        assert stream.wait_for("CommandEnded")["status"] == "Purged"
        report_upload(emulator, device, shelf, "a.txt", statusCode=201, statusDescription="ok")
        assert stream.wait_for("UploadStarted")["blobName"] == f"{device.id}/a.txt"
        ended = stream.wait_for("UploadEnded")
        assert (ended["isSuccess"], ended["statusCode"], ended["text"]) == (True, 201, "ok")
        service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
        stream.wait_for("IdentityDeleted")
    assert device.key not in stream.text


def test_a_device_sees_nothing_of_its_module_or_of_another(
    emulator: Emulator, user: Visitor, service: Service, device: Device
) -> None:
    put_module(service, device.id, "m")
    other = Device.of(emulator.register_device(new_id()))
    with user.stream(f"?device={device.id}") as stream:
        stream.wait_for("Twin")
        send_events(emulator, other, "of another")
        service.request("PATCH", f"/twins/{device.id}/modules/m", json={"tags": {"a": 1}})
        send_events(emulator, device, "of this one")
        stream.wait_for("Telemetry")
    assert "of another" not in stream.text
    assert "TwinChanged" not in stream.text
    with user.stream(f"?device={device.id}&module=m") as stream:
        assert stream.wait_for("TwinChanged")["moduleId"] == "m"


def test_a_refusal_is_shown_with_its_reason(user: Visitor, emulator: Emulator) -> None:
    with user.stream() as stream:
        stream.wait_for("Numbers")
        visitor = Visitor(emulator)
        assert visitor.request("GET", "/devices/refused-here").status_code == 401
        visitor.http.close()
        item = stream.wait_for("Refused", lambda each: "refused-here" in each["text"])
        assert item["text"] == "Refused GET '/devices/refused-here': no SAS token"
    found = user.request("GET", "/_emulator/refusals").json()
    assert item in found


def test_a_stream_begins_with_the_last_messages(
    user: Visitor, send: Callable[..., None], device: Device
) -> None:
    send(*(f"message {number}" for number in range(30)))
    with user.stream(f"?device={device.id}") as stream:
        first = stream.wait_for("Telemetry")
        assert first["body"]["text"] == "message 10"
        stream.wait_for("Telemetry", lambda each: each["body"]["text"] == "message 29")
    assert "Dropped" not in stream.text


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"x" * 5000, {"text": "x" * 4096, "size": 5000}),
        (b"x" + "\u20ac".encode() * 2000, {"text": "x" + "\u20ac" * 1365, "size": 6001}),
        (b"\xff\x00", {"base64": "/wA=", "size": 2}),
        (b"", {"text": "", "size": 0}),
        (b"\x1b[31m<b>", {"text": "\x1b[31m<b>", "size": 8}),
    ],
)
def test_a_body_is_text_or_base64_and_cut(content: bytes, shown: dict[str, object]) -> None:
    from emulator.http.web import changes

    assert changes._text(content) == shown


def test_a_change_of_a_twin_has_the_values_before_it(
    user: Visitor, service: Service, device: Device
) -> None:
    path = f"/twins/{device.id}"
    first = {"tags": {"a": 1.0, "b": {"c": 1, "d": 2}, "e": 3}}
    assert service.request("PATCH", path, json=first).ok
    with user.stream(f"?device={device.id}") as stream:
        stream.wait_for("Twin")
        patch = {"tags": {"a": None, "b": {"c": 2}, "e": {"f": 1}, "new": 1}}
        assert service.request("PATCH", path, json=patch).ok
        change = stream.wait_for("TwinChanged", lambda each: each["tags"] == patch["tags"])
    tags = {"a": 1.0, "b": {"c": 1}, "e": 3}
    assert change["before"] == {"tags": tags, "desired": None, "reported": None}


def test_a_large_patch_is_not_sent(user: Visitor, service: Service, device: Device) -> None:
    tags = {f"t{number}": "x" * 4000 for number in range(5)}
    with user.stream(f"?device={device.id}") as stream:
        assert service.request(
            "PATCH", f"/twins/{device.id}", json={"properties": {"desired": tags}}
        ).ok
        change = stream.wait_for("TwinChanged")
        assert list(change["desired"]) == ["$tooLarge"]


def test_a_reader_that_misses_something_learns_how_much(
    emulator: Emulator, user: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = emulator.hub
    change = Refused("flood", hub.clock.now())

    def flood() -> None:
        for number in range(2 * live._KEPT):
            hub.feed.publish(replace(change, text=f"flood {number}"))

    with user.stream() as stream:
        stream.wait_for("Numbers")
        call(emulator._running.loop, flood)
        lost = stream.wait_for("Dropped")
        assert live._KEPT <= lost["changes"] <= 2 * live._KEPT
        last = f"flood {2 * live._KEPT - 1}"
        stream.wait_for("Refused", lambda each: each["text"] == last)


def test_there_are_some_tens_of_streams_at_most(
    user: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_STREAMS", 2)
    with opened(user), opened(user):
        answer = user.request("GET", "/_emulator/changes")
        assert answer.status_code == 429
        assert "2 pages watch this hub" in answer.json()["Message"]
    with opened(user):
        pass


def opened(user: Visitor) -> requests.Response:
    """Open a stream as soon as those of before have ended."""
    found: list[requests.Response] = []

    def opens() -> bool:
        found.append(user.request("GET", "/_emulator/changes", stream=True))
        return found[-1].status_code == 200

    wait_until(opens)
    return found[-1]


def test_a_browser_that_reads_nothing_is_cut_off(
    emulator: Emulator, user: Visitor, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_SLOW_SECONDS", 0.3)
    hub, cookie = emulator.hub, next(iter(user.http.cookies))
    change = Refused("x" * 1_000_000, hub.clock.now())
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(PATIENCE)
        plain.connect((emulator.host_name, emulator.https_port))
        with trust(emulator).wrap_socket(plain, server_hostname=emulator.host_name) as slow:
            head = f"GET {CHANGES} HTTP/1.1\r\nHost: {user.url.removeprefix('https://')}\r\n"
            slow.sendall(f"{head}Cookie: {cookie.name}={cookie.value}\r\n\r\n".encode())
            assert slow.recv(15) == b"HTTP/1.1 200 OK"
            for _ in range(60):  # 60 MB: more than all buffers on the way hold
                call(emulator._running.loop, lambda: hub.feed.publish(change))
            monkeypatch.setattr(live, "_STREAMS", 1)
            opened(user).close()
    small = replace(change, text="")  # no later stream is to begin with the large ones
    for _ in range(live._KEPT):
        call(emulator._running.loop, lambda: hub.feed.publish(small))


@pytest.mark.parametrize("query", ["?devices=x", "?device=a&device=b"])
def test_a_wrong_parameter_is_refused(user: Visitor, query: str) -> None:
    answer = user.request("GET", f"/_emulator/changes{query}")
    assert answer.status_code == 400
    assert "parameter" in answer.json()["Message"]


def test_a_service_can_watch_with_its_token(service: Service) -> None:
    with service._session.get(
        f"{service.url}/_emulator/changes", stream=True, timeout=PATIENCE
    ) as answer:
        line = next(answer.iter_lines())
    assert "Numbers" in [each["type"] for each in json.loads(line.removeprefix(b"data: "))]


# --- protocols


def test_the_protocol_of_a_connected_device_is_known(
    emulator: Emulator, user: Visitor, device: Device
) -> None:
    ids = {"ids": [device.id, f"{device.id}/m", "unknown"]}
    with MethodDevice(emulator, device, echo):
        assert user.request("POST", "/_page/protocols", json=ids).json() == {device.id: "MQTT"}


@pytest.mark.parametrize(
    "body", [{}, {"ids": "a"}, {"ids": [1]}, {"ids": ["a"] * 1001}, {"id": []}]
)
def test_wrong_ids_are_refused(user: Visitor, body: object) -> None:
    assert user.request("POST", "/_page/protocols", json=body).status_code == 400
