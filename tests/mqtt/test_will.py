"""Wills: the telemetry that a device leaves when its connection ends without a DISCONNECT."""

from __future__ import annotations

from typing import Any

import pytest

from emulator import Emulator
from tests.messages import (
    Module,
    bodies,
    greet_module,
    put_module,
    read_events,
    wait_until,
)
from tests.mqtt.raw import DISCONNECT, Dial, Greet, Online, connack, puback, publish
from tests.support import Device, Service

_USUAL_FLAGS = 0xC0 | 0x02 | 0x04  # user name, password, clean session, will


def _will(device: Device, bag: str = "", body: bytes = b"gone") -> tuple[str, bytes]:
    return f"devices/{device.id}/messages/events/{bag}", body


def test_a_will_is_a_message_like_any_other(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, will=_will(device, "a=1&null&%24.mid=m1&$.ct=application%2Fjson", b"[1]"))
    wire.send(publish(_will(device)[0], b"alive", packet_id=1))
    wire.expect(puback(1))
    wire.close()
    wait_until(lambda: len(read_events(service, device.id)) == 2)
    alive, will = read_events(service, device.id)
    assert will["body"] == [1]
    assert will["properties"] == {"a": "1", "null": None, "iothub-MessageType": "Will"}
    assert will["systemProperties"] == {"message-id": "m1", "content-type": "application/json"}
    for event in (alive, will):
        event["annotations"].pop("iothub-enqueuedtime")
    assert will["annotations"] == alive["annotations"]


def test_a_will_with_the_topic_that_lacks_its_slash_is_accepted(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, will=(f"devices/{device.id}/messages/events", b"gone"))
    wire.close()
    wait_until(lambda: bodies(service, device.id) == ["gone"])


@pytest.mark.parametrize(
    ("flags", "retained"), [(0, False), (0x08, False), (0x20, True), (0x28, True)]
)
def test_the_flags_of_a_will(
    online: Online, service: Service, device: Device, flags: int, retained: bool
) -> None:
    online(device, will=_will(device), flags=_USUAL_FLAGS | flags).close()
    wait_until(lambda: bodies(service, device.id))
    properties = {"iothub-MessageType": "Will", **({"mqtt-retain": "true"} if retained else {})}
    assert read_events(service, device.id)[0]["properties"] == properties


def test_a_keep_alive_that_lapses_leaves_the_will(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, will=_will(device), keep_alive=1)
    wire.expect_closed()
    wait_until(lambda: bodies(service, device.id) == ["gone"])


def test_a_takeover_leaves_the_will_of_the_older_connection_once(
    online: Online, service: Service, device: Device
) -> None:
    older = online(device, will=_will(device, body=b"older"))
    newer = online(device, will=_will(device, body=b"newer"))
    older.expect_closed()
    wait_until(lambda: bodies(service, device.id) == ["older"])
    newer.close()
    wait_until(lambda: bodies(service, device.id) == ["older", "newer"])


def test_a_device_that_is_disabled_leaves_its_will(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, will=_will(device))
    identity = service.request("GET", f"/devices/{device.id}").json()
    identity["status"] = "disabled"
    assert service.request(
        "PUT", f"/devices/{device.id}", json=identity, headers={"If-Match": "*"}
    ).ok
    wire.expect_closed()
    wait_until(lambda: bodies(service, device.id) == ["gone"])


def test_a_goodbye_takes_back_the_will_of_its_connection_alone(
    online: Online, service: Service, device: Device
) -> None:
    polite = online(device, will=_will(device, body=b"polite"))
    polite.send(DISCONNECT)
    polite.expect_closed()
    online(device, will=_will(device, body=b"rude")).close()
    wait_until(lambda: bodies(service, device.id))
    assert bodies(service, device.id) == ["rude"]


@pytest.mark.parametrize(
    "topic",
    [
        "devices/other/messages/events/",
        "devices/{id}/messages/devicebound/",
        "devices/{id}/modules/camera/messages/events/",
        "devices/{id}/messages/events/a=1/b=2",
        "$iothub/twin/GET/?$rid=1",
        "gone",
        "",
    ],
)
def test_a_will_for_any_other_topic_is_refused_and_disturbs_nothing(
    online: Online, dial: Dial, greet: Greet, service: Service, device: Device, topic: str
) -> None:
    live = online(device)
    wire = dial()
    wire.send(greet(device, will=(topic.format(id=device.id), b"gone")))
    wire.expect(connack(5))
    wire.expect_closed()
    live.expect_nothing()
    assert read_events(service, device.id) == []


def test_a_connect_that_is_refused_leaves_no_will(
    dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    wire = dial()
    wire.send(greet(device, lifetime=-10, will=_will(device)))
    wire.expect(connack(5))
    wire.expect_closed()
    assert read_events(service, device.id) == []


def test_a_module_leaves_a_will_of_its_own(
    dial: Dial, emulator: Emulator, service: Service, device: Device
) -> None:
    module = put_module(service, device.id)
    wire = dial()
    wire.send(greet_module(emulator, module, will=(module.events, b"gone")))
    wire.expect(connack(0))
    wire.close()
    wait_until(lambda: bodies(service, device.id) == ["gone"])
    (event,) = read_events(service, device.id)
    assert (event["deviceId"], event["moduleId"]) == (device.id, module.id)


@pytest.mark.parametrize("other", ["device", "sibling"])
def test_a_module_has_no_will_for_others(
    dial: Dial, emulator: Emulator, service: Service, device: Device, other: str
) -> None:
    module = put_module(service, device.id)
    targets: dict[str, Any] = {
        "device": _will(device),
        "sibling": (Module(device.id, "other", "").events, b"gone"),
    }
    wire = dial()
    wire.send(greet_module(emulator, module, will=targets[other]))
    wire.expect(connack(5))
    wire.expect_closed()
