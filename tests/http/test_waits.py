"""Waits and calls of direct methods for tests in every language: `/_emulator/wait`, `…/calls`."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.devices import METHODS, connect_device
from tests.http.support import MethodDevice, check_error, read
from tests.mqtt.raw import publish
from tests.support import Device, Service, second_hub, trust

TELEMETRY = "devices/{}/messages/events/"


def wait(service: Service, timeout: float = 30, **body: Any) -> requests.Response:
    body["for"] = body.pop("for_")
    return service.request("POST", "/_emulator/wait", json={**body, "timeout": timeout}, params={})


def found(response: requests.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_each_wait_ends_when_it_happens(
    emulator: Emulator, service: Service, device: Device, pool: ThreadPoolExecutor
) -> None:
    begun = {
        "event": pool.submit(wait, service, for_="event", device=device.id, where={"n": 1}),
        "connected": pool.submit(wait, service, for_="connected", device=device.id),
        "listening": pool.submit(wait, service, for_="listening", device=device.id, method="go"),
        "reported": pool.submit(
            wait, service, for_="reported", device=device.id, properties={"a": 1}
        ),
    }
    port = emulator.mqtt_port
    with connect_device(device.connection_string, port, trust(emulator), METHODS) as wire:
        wire.send(publish(TELEMETRY.format(device.id), b'{"n": 1, "m": 2}'))
        wire.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a": 1}'))
        answers = {name: found(each.result(60)) for name, each in begun.items()}
    event = answers["event"]["event"]
    assert (event["deviceId"], event["body"]) == (device.id, '{"n": 1, "m": 2}')
    for name in ("connected", "listening", "reported"):
        assert answers[name]["device"]["connected"] is True
    assert answers["listening"]["device"]["listensToMethods"] is True
    assert answers["reported"]["device"] == {
        "deviceId": device.id,
        "moduleId": None,
        "registered": True,
        "connected": True,
        "listensToMethods": True,
        "listensToMessages": False,
        "reported": {"a": 1},
    }
    after = event["sequenceNumber"] + 1
    late = wait(service, 0, for_="event", device=device.id, **{"from": after})
    assert late.status_code == 504


def test_a_wait_that_fails_says_what_was_there_instead(service: Service, device: Device) -> None:
    response = wait(service, 0.05, for_="connected", device=device.id)
    assert response.status_code == 504
    document = response.json()
    assert list(document) == ["Message", "instead"]
    assert document["Message"].startswith(f"'{device.id}' did not connect within 0.05 s.\n")
    instead = document["instead"]
    assert (instead["device"]["registered"], instead["device"]["connected"]) == (True, False)
    assert instead["events"] == []
    assert device.id not in instead["connected"]


def test_a_hub_that_stops_answers_its_waits(emulator: Emulator, pool: ThreadPoolExecutor) -> None:
    with second_hub(emulator) as hub, Service(hub) as service:
        waiting = pool.submit(wait, service, for_="connected", device="x")
        with Service(hub) as other:  # the wait is there
            assert wait(other, 0.5, for_="connected", device="x").status_code == 504
        began = time.monotonic()
    check_error(waiting.result(10), 503, "ServiceUnavailable")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Unknown for: None. Use one of event, connected, listening, reported, upload"),
        (
            {"for": "rain"},
            "Unknown for: rain. Use one of event, connected, listening, reported, upload",
        ),
        ({"for": 1}, "for is not a string"),
        ({"for": "connected"}, "device is missing. Name the device to wait for"),
        ({"for": "event", "module": "m"}, "device is missing. Name the device to wait for"),
        ({"for": "event", "device": 1}, "device is not a string"),
        ({"for": "event", "where": "x"}, "where is not an object"),
        ({"for": "event", "from": -1}, "from (-1) must be within [0; 9223372036854775807]"),
        ({"for": "event", "method": "go"}, "method is for listening only. Leave it out"),
        (
            {"for": "listening", "device": "d"},
            "method is missing. Name the direct method to wait for",
        ),
        ({"for": "upload"}, "device is missing. Name the device to wait for"),
        ({"for": "upload", "device": "d", "name": 1}, "name is not a string"),
        (
            {"for": "upload", "device": "d", "from": -1},
            "from (-1) must be within [0; 9223372036854775807]",
        ),
        ({"for": "connected", "device": "d", "name": "a"}, "name is for upload only. Leave it out"),
        (
            {"for": "reported", "device": "d", "from": 1},
            "from is for event and upload only. Leave it out",
        ),
        (
            {"for": "upload", "device": "d", "module": "m"},
            "module is not for upload: modules have no uploads. Leave it out",
        ),
        ({"for": "reported", "device": "d", "properties": []}, "properties is not an object"),
        ({"for": "event", "timeout": "1"}, "timeout is not a number. Use seconds"),
        ({"for": "event", "timeout": True}, "timeout is not a number. Use seconds"),
        ({"for": "event", "timeout": 601}, "Invalid timeout: 601. Use seconds from 0 to 600"),
        ({"for": "event", "timeout": -1}, "Invalid timeout: -1. Use seconds from 0 to 600"),
    ],
)
def test_a_wrong_member_is_refused(service: Service, body: dict[str, Any], text: str) -> None:
    response = service.request("POST", "/_emulator/wait", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["Message"].partition(";")[2] == text


def test_an_unknown_member_is_named(service: Service) -> None:
    response = service.request("POST", "/_emulator/wait", json={"for": "event", "devic": "x"})
    assert "unknown member devic" in check_error(response, 400, "GenericBadRequest")


def test_calls_are_listed_with_their_answers(service: Service, echoing: MethodDevice) -> None:
    before = len(read(service, "/_emulator/calls", device="echoing"))
    call = {"methodName": "go", "payload": {"n": 1.0}}
    assert service.request("POST", "/twins/echoing/methods", json=call).status_code == 200
    calls = read(service, "/_emulator/calls", device="echoing")
    assert len(calls) == before + 1
    last = calls[-1]
    assert (last["methodName"], last["payload"], last["answer"]) == ("go", {"n": 1.0}, {"n": 1.0})
    assert (last["status"], last["error"]) == (200, None)
    assert read(service, "/_emulator/calls", device="another") == []
    assert last in read(service, "/_emulator/calls")
