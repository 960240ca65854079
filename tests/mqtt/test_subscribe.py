"""SUBSCRIBE and UNSUBSCRIBE: which filters there are, and what a subscription does."""

from __future__ import annotations

import pytest

from tests.mqtt.raw import (
    Invoke,
    Online,
    publish,
    suback,
    subscribe,
    unsuback,
    unsubscribe,
)
from tests.support import Device, Service

_C2D = "devices/{id}/messages/devicebound/#"
_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_FILTERS = [_C2D, _METHODS, _TWIN_ANSWERS, _DESIRED, "$iothub/methods/POST/reboot/#"]


@pytest.mark.parametrize("name", _FILTERS)
@pytest.mark.parametrize(("wanted", "granted"), [(0, 0), (1, 1), (2, 1)])
def test_every_filter_of_a_device_is_granted_with_qos_1_at_most(
    online: Online, device: Device, name: str, wanted: int, granted: int
) -> None:
    wire = online(device)
    wire.send(subscribe(65535, (name.format(id=device.id), wanted)))
    wire.expect(suback(65535, granted))


def test_several_filters_in_one_packet_are_granted_in_their_order(
    online: Online, device: Device
) -> None:
    wire = online(device)
    wire.send(subscribe(10, (_METHODS, 2), (_TWIN_ANSWERS, 0), (_DESIRED, 1)))
    wire.expect(suback(10, 1, 0, 1))


def test_a_filter_that_comes_twice_in_one_packet_is_granted_each_time_on_its_own(
    online: Online, device: Device
) -> None:
    # MQTT 3.1.1, 3.8.4: as if each filter had come in a SUBSCRIBE of its own.
    wire = online(device)
    wire.send(subscribe(10, (_METHODS, 1), (_METHODS, 0)))
    wire.expect(suback(10, 1, 0))


@pytest.mark.parametrize(
    "name",
    [
        "#",
        "+",
        "+/+",
        "",
        "$iothub/#",
        "$iothub/twin/#",
        "$iothub/twin/res/+",
        "$iothub/twin/res/200/#",
        "$iothub/twin/res",
        "$iothub/twin/res/",
        "$iothub/+/res/#",
        "$iothub/twin/PATCH/properties/reported/#",
        "$iothub/twin/PATCH/properties/#",
        "$iothub/twin/GET/#",
        "$iothub/methods/#",
        "$iothub/methods/res/#",
        "$iothub/methods/POST/+",
        "$iothub/methods/POST/+/#",
        "$iothub/methods/POST//#",
        "$iothub/methods/POST/a/b/#",
        "$IOTHUB/twin/res/#",
        "$iothub/Twin/res/#",
        "devices/#",
        "devices/+/messages/devicebound/#",
        "devices/{id}/#",
        "devices/{id}/messages/#",
        "devices/{id}/messages/devicebound",
        "devices/{id}/messages/devicebound/+",
        "devices/{id}/messages/deviceBound/#",
        "devices/{id}/messages/events/#",
        "devices/{id}x/messages/devicebound/#",
        "devices/{id}/modules/m/inputs/#",
        "/devices/{id}/messages/devicebound/#",
        "$SYS/#",
        "$share/group/$iothub/twin/res/#",
        "telemetry",
    ],
)
def test_any_other_filter_ends_the_connection(online: Online, device: Device, name: str) -> None:
    wire = online(device)
    wire.send(subscribe(1, name.format(id=device.id)))
    wire.expect_closed()


def test_one_bad_filter_among_good_ones_ends_the_connection(online: Online, device: Device) -> None:
    wire = online(device)
    wire.send(subscribe(1, _METHODS, "$iothub/#", _DESIRED))
    wire.expect_closed()


# --- how many


def test_the_sixth_subscription_ends_the_connection(online: Online, device: Device) -> None:
    wire = online(device)
    for packet_id, name in enumerate(_FILTERS, 1):
        wire.send(subscribe(packet_id, name.format(id=device.id)))
        wire.expect(suback(packet_id, 0))
    wire.send(subscribe(6, _METHODS))  # again, which is no sixth
    wire.expect(suback(6, 0))
    wire.send(subscribe(7, "$iothub/methods/POST/other/#"))
    wire.expect_closed()


def test_six_subscriptions_in_one_packet_end_the_connection(online: Online, device: Device) -> None:
    wire = online(device)
    names = [name.format(id=device.id) for name in _FILTERS]
    wire.send(subscribe(1, *names, "$iothub/methods/POST/other/#"))
    wire.expect_closed()


def test_a_subscription_that_ended_makes_room_for_another(online: Online, device: Device) -> None:
    wire = online(device, *[name.format(id=device.id) for name in _FILTERS])
    wire.send(unsubscribe(2, _DESIRED), subscribe(3, "$iothub/methods/POST/other/#"))
    wire.expect(unsuback(2), suback(3, 0))
    wire.expect_nothing()


# --- what it does


def test_without_a_subscription_twin_requests_are_carried_out_and_not_answered(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device)
    wire.send(
        publish("$iothub/twin/GET/?$rid=1"),
        publish("$iothub/twin/PATCH/properties/reported/?$rid=2", b'{"a": 1}'),
        publish("$iothub/twin/PATCH/properties/reported/?$rid=3", b"no JSON"),
    )
    wire.expect_nothing()
    reported = service.request("GET", f"/twins/{device.id}").json()["properties"]["reported"]
    assert reported["a"] == 1
    wire.send(subscribe(4, _TWIN_ANSWERS), publish("$iothub/twin/GET/?$rid=5"))
    wire.expect(suback(4, 0))
    wire.expect_publish("$iothub/twin/res/200/?$rid=5")


def test_unsubscribing_ends_the_answers_to_twin_requests(online: Online, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS, _METHODS)
    wire.send(publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    wire.send(unsubscribe(2, _TWIN_ANSWERS))
    wire.expect(unsuback(2))
    wire.send(publish("$iothub/twin/GET/?$rid=3"))
    wire.expect_nothing()


def test_unsubscribing_ends_the_desired_properties(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, _DESIRED)
    wire.send(unsubscribe(2, _DESIRED))
    wire.expect(unsuback(2))
    body = {"properties": {"desired": {"a": 1}}}
    assert service.request("PATCH", f"/twins/{device.id}", json=body).status_code == 200
    wire.expect_nothing()


def test_unsubscribing_makes_the_device_not_online_for_methods(
    online: Online, invoke: Invoke, service: Service, device: Device
) -> None:
    wire = online(device, _METHODS)
    wire.send(unsubscribe(2, _METHODS))
    wire.expect(unsuback(2))
    answer = invoke(device, "reboot").result()
    assert answer.status_code == 404
    assert answer.headers["iothub-errorcode"] == "DeviceNotOnline"
    wire.expect_nothing()
    identity = service.request("GET", f"/devices/{device.id}").json()
    assert identity["connectionState"] == "Connected"


def test_unsubscribing_from_what_was_never_subscribed_to_is_acknowledged(
    online: Online, device: Device
) -> None:
    wire = online(device, _METHODS)
    wire.send(unsubscribe(2, _DESIRED, "no/such/topic", "#"))
    wire.expect(unsuback(2))


def test_a_subscription_to_one_method_is_for_that_one_alone(
    online: Online, invoke: Invoke, device: Device
) -> None:
    wire = online(device, "$iothub/methods/POST/reboot/#")
    refused = invoke(device, "Reboot").result()
    assert refused.headers["iothub-errorcode"] == "DeviceNotOnline"
    call = invoke(device, "reboot")
    wire.send(publish(f"$iothub/methods/res/200/?$rid={wire.expect_method('reboot')}"))
    assert call.result().status_code == 200


@pytest.mark.parametrize("qos", [1, 2])
def test_what_the_hub_sends_of_twins_and_methods_has_qos_0_whatever_was_granted(
    online: Online, invoke: Invoke, service: Service, device: Device, qos: int
) -> None:
    wire = online(device)
    wire.send(subscribe(1, *[(name, qos) for name in (_TWIN_ANSWERS, _DESIRED, _METHODS)]))
    wire.expect(suback(1, 1, 1, 1))
    wire.send(publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    service.request("PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"a": 1}}})
    wire.expect_publish("$iothub/twin/PATCH/properties/desired/?$version=2")
    call = invoke(device, "reboot")
    wire.send(publish(f"$iothub/methods/res/200/?$rid={wire.expect_method('reboot')}"))
    assert call.result().status_code == 200


# --- cloud-to-device messages


def _send(service: Service, device: Device, body: str, **properties: str) -> int:
    path = f"/_emulator/devices/{device.id}/messages"
    message = {"body": body, "properties": properties}
    return service.request("POST", path, json=message).status_code


def test_a_message_that_no_topic_can_carry_does_not_shut_its_device_out(
    online: Online, service: Service, device: Device
) -> None:
    """64 KB of properties may be 192 KB once they are percent-encoded; a topic is 64 KB."""
    name = f"devices/{device.id}/messages/devicebound/#"
    wire = online(device, name)
    assert _send(service, device, "too much", key="%" * 30_000) != 500
    wire.expect_nothing()
    assert _send(service, device, "plain") == 204
    assert wire.receive_publish()[1] == b"plain"
    again = online(device, name)
    again.expect_nothing()
