"""One device never sees, answers or disturbs another, whatever it subscribes or publishes to."""

from __future__ import annotations

import json

import pytest

from emulator import Emulator
from tests.mqtt.raw import (
    Dial,
    Greet,
    Invoke,
    Online,
    connack,
    connect,
    puback,
    publish,
    published,
    suback,
    subscribe,
)
from tests.support import Device, Service, sas_token

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_ALL = (_METHODS, _TWIN_ANSWERS, _DESIRED)


def test_a_device_hears_its_own_methods_answers_and_desired_properties_alone(
    online: Online,
    invoke: Invoke,
    service: Service,
    device: Device,
    other_device: Device,
) -> None:
    wire, other = online(device, *_ALL), online(other_device, *_ALL)
    body = {"properties": {"desired": {"for": device.id}}}
    service.request("PATCH", f"/twins/{device.id}", json=body)
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=2", {"for": device.id, "$version": 2}
    )
    wire.send(publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    call = invoke(device, "reboot")
    wire.send(publish(f"$iothub/methods/res/200/?$rid={wire.expect_method('reboot')}"))
    assert call.result().status_code == 200
    other.expect_nothing()
    other.send(publish("$iothub/twin/GET/?$rid=1"))
    other.expect_publish(
        "$iothub/twin/res/200/?$rid=1", {"desired": {"$version": 1}, "reported": {"$version": 1}}
    )


def test_a_message_goes_to_its_device_alone(
    online: Online, service: Service, device: Device, other_device: Device
) -> None:
    wire, other = online(device), online(other_device)
    for each, key in ((wire, device), (other, other_device)):
        each.send(subscribe(1, (f"devices/{key.id}/messages/devicebound/#", 1)))
        each.expect(suback(1, 1))
    path = f"/_emulator/devices/{device.id}/messages"
    assert service.request("POST", path, json={"body": "private"}).status_code == 204
    data = wire.receive()
    topic, payload = published(data)
    assert payload == b"private"
    packet_id = int.from_bytes(data.partition(topic.encode())[2][:2], "big")
    other.expect_nothing()
    other.send(puback(packet_id))  # a packet id is each connection's own
    other.expect_nothing()
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert twin["cloudToDeviceMessageCount"] == 1


def test_a_device_cannot_answer_anothers_method(
    online: Online, invoke: Invoke, device: Device, other_device: Device
) -> None:
    wire, other = online(device, _METHODS), online(other_device, _METHODS)
    call, others_call = invoke(device, "secret"), invoke(other_device, "secret")
    request_id, others_id = wire.expect_method("secret"), other.expect_method("secret")
    other.send(publish(f"$iothub/methods/res/200/?$rid={request_id}", b'"forged"'))
    other.expect_nothing()
    assert not call.done()
    wire.send(publish(f"$iothub/methods/res/200/?$rid={request_id}", b'"genuine"'))
    assert call.result().json() == {"status": 200, "payload": "genuine"}
    other.send(publish(f"$iothub/methods/res/200/?$rid={others_id}", b'"mine"'))
    assert others_call.result().json() == {"status": 200, "payload": "mine"}


def test_what_a_device_reports_is_its_own(
    online: Online, service: Service, device: Device, other_device: Device
) -> None:
    online(device, *_ALL)
    other = online(other_device, *_ALL)
    other.send(
        publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"deviceId": "another"}')
    )
    other.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert twin["properties"]["reported"]["$version"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "#",
        "+/#",
        "$iothub/#",
        "$iothub/+/#",
        "$iothub/methods/#",
        "$iothub/methods/res/#",
        "devices/#",
        "devices/+/messages/devicebound/#",
        "devices/+/messages/events/#",
        "devices/{other}/#",
        "devices/{other}/messages/devicebound/#",
        "devices/{other}/messages/events/#",
        "devices/{other}/modules/m/#",
        "$SYS/#",
        "$share/g/#",
    ],
)
def test_a_device_cannot_subscribe_to_anothers_topics(
    online: Online, device: Device, other_device: Device, name: str
) -> None:
    wire, other = online(device, *_ALL), online(other_device)
    other.send(subscribe(1, name.format(other=device.id)))
    other.expect_closed()
    wire.expect_nothing()


@pytest.mark.parametrize(
    "topic",
    [
        "devices/{other}/messages/events/",
        "devices/{other}/messages/devicebound/",
        "devices/{other}/modules/m/messages/events/",
        "devices/+/messages/events/",
        "#",
        # topics that the hub itself sends on
        "$iothub/methods/POST/reboot/?$rid=1",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/PATCH/properties/desired/?$version=9",
        "$SYS/broker/version",
    ],
)
@pytest.mark.parametrize("retain", [False, True])
def test_a_device_cannot_publish_to_another(
    online: Online, device: Device, other_device: Device, topic: str, retain: bool
) -> None:
    wire, other = online(device, *_ALL), online(other_device, *_ALL)
    other.send(publish(topic.format(other=device.id), b"{}", packet_id=1, retain=retain))
    other.expect_closed()
    wire.expect_nothing()
    # Nor is anything kept for later.
    again = online(other_device, *_ALL)
    again.expect_nothing()


def test_a_device_cannot_leave_a_will_to_another(
    dial: Dial, greet: Greet, device: Device, other_device: Device
) -> None:
    wire = dial()
    wire.send(greet(device, will=(f"devices/{other_device.id}/messages/events/", b"forged")))
    data = wire.receive()
    assert data == connack(5)
    wire.expect_closed()


def test_a_policys_token_makes_no_device_another(
    dial: Dial,
    emulator: Emulator,
    invoke: Invoke,
    online: Online,
    device: Device,
    other_device: Device,
) -> None:
    """It may open any device's connection, and is then that device and nothing more."""
    wire = online(device, *_ALL)
    host = emulator.host_name
    key = emulator.policy_connection_string("iothubowner").partition(";SharedAccessKey=")[2]
    token = sas_token(host, key, policy="iothubowner")
    other = dial()
    other.send(
        connect(other_device.id, f"{host}/{other_device.id}/?api-version=2021-04-12", token),
        subscribe(1, *_ALL),
    )
    other.expect(connack(0), suback(1, 0, 0, 0))
    call = invoke(device, "reboot")
    request_id = wire.expect_method("reboot")
    other.expect_nothing()
    wire.send(publish(f"$iothub/methods/res/200/?$rid={request_id}"))
    assert call.result().status_code == 200
    other.send(publish(f"devices/{device.id}/messages/events/"))
    other.expect_closed()
    wire.expect_nothing()


def test_ids_that_begin_alike_are_two_devices(
    emulator: Emulator, online: Online, invoke: Invoke, device: Device
) -> None:
    longer = device._replace(id=f"{device.id}-2")
    emulator.register_device(longer.id)
    wire, other = online(device, *_ALL), online(longer, *_ALL)
    call = invoke(device, "reboot")
    wire.send(publish(f"$iothub/methods/res/200/?$rid={wire.expect_method('reboot')}"))
    assert call.result().status_code == 200
    other.expect_nothing()
    other.send(publish(f"devices/{device.id}/messages/events/"))
    other.expect_closed()


@pytest.mark.parametrize("device_id", ["+", "#", "a#", "+b", "$iothub", "*", "%2F", "a.b:c;d=e"])
def test_a_device_whose_id_looks_like_a_wildcard_is_one_device(
    emulator: Emulator, online: Online, service: Service, device: Device, device_id: str
) -> None:
    odd = device._replace(id=f"{device_id}{device.id if len(device_id) > 1 else ''}")
    emulator.register_device(odd.id)
    wire, other = online(odd, *_ALL), online(device, *_ALL)
    body = {"properties": {"desired": {"a": 1}}}
    assert service.request("PATCH", f"/twins/{device.id}", json=body).status_code == 200
    other.expect_publish("$iothub/twin/PATCH/properties/desired/?$version=2")
    wire.expect_nothing()
    wire.send(publish("$iothub/twin/GET/?$rid=1"))
    answer = json.loads(wire.expect_publish("$iothub/twin/res/200/?$rid=1"))
    assert answer["desired"] == {"$version": 1}
    wire.send(publish(f"devices/{device.id}/messages/events/"))
    wire.expect_closed()


def test_a_busy_device_does_not_hold_up_another(
    online: Online, device: Device, other_device: Device
) -> None:
    wire, other = online(device, *_ALL), online(other_device, *_ALL)
    flood = publish(f"devices/{device.id}/messages/events/", bytes(200)) * 5000
    wire.send(flood)
    other.send(publish("$iothub/twin/GET/?$rid=1"))
    other.expect_publish("$iothub/twin/res/200/?$rid=1")
    wire.expect_nothing()
