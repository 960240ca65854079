"""PUBLISH from the device: what is acknowledged, in which order, and what ends the connection."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from emulator.hub.core import limits
from tests.mqtt.raw import (
    Dial,
    Greet,
    Online,
    connack,
    puback,
    publish,
    published,
    suback,
    subscribe,
)
from tests.support import Device, Service

_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_REPORTED = "$iothub/twin/PATCH/properties/reported/"

_LARGEST_MESSAGE = 262_144  # IoT Hub docs: quotas and throttling, 256 KB


# --- telemetry


@pytest.mark.parametrize(
    "topic",
    [
        "devices/{id}/messages/events/",
        "devices/{id}/messages/events",
        "devices/{id}/messages/events/alert=true&%24.ct=application%2Fjson&$.mid=1&empty=&flag",
        "devices/{id}/messages/events/%24.on=output/",  # as the SDK for Node ends it
    ],
)
def test_telemetry_is_acknowledged(online: Online, device: Device, topic: str) -> None:
    wire = online(device)
    wire.send(publish(topic.format(id=device.id), b"21.5", packet_id=65535))
    wire.expect(puback(65535))


def test_telemetry_with_qos_0_is_taken_without_a_word(online: Online, device: Device) -> None:
    wire = online(device)
    wire.send(publish(f"devices/{device.id}/messages/events/", b"21.5"))
    wire.expect_nothing()


@pytest.mark.parametrize("flags", [{"dup": True}, {"retain": True}, {"dup": True, "retain": True}])
def test_telemetry_may_be_marked_as_duplicate_and_as_retained(
    online: Online, device: Device, flags: dict[str, bool]
) -> None:
    wire = online(device)
    topic = f"devices/{device.id}/messages/events/"
    wire.send(publish(topic, b"21.5", packet_id=1, **flags))
    wire.expect(puback(1))
    wire.expect_nothing()


def test_what_is_published_comes_back_to_nobody(
    online: Online, device: Device, other_device: Device
) -> None:
    filters = ("$iothub/methods/POST/#", _TWIN_ANSWERS, _DESIRED)
    wire, other = online(device, *filters), online(other_device, *filters)
    wire.send(publish(f"devices/{device.id}/messages/events/", b"21.5", packet_id=1, retain=True))
    wire.expect(puback(1))
    wire.expect_nothing()
    other.expect_nothing()


def test_messages_are_acknowledged_in_the_order_in_which_they_came(
    online: Online, device: Device
) -> None:
    """Telemetry, twin requests and methods' answers mixed, as fast as the wire takes them."""
    wire = online(device, _TWIN_ANSWERS)
    packets, expected = [], []
    for packet_id in range(1, 2001):
        if packet_id % 10 == 0:
            topic = f"$iothub/methods/res/200/?$rid=none-{packet_id}"
        elif packet_id % 10 == 5:
            topic = f"$iothub/twin/GET/?$rid={packet_id}"
        else:
            topic = f"devices/{device.id}/messages/events/"
        packets.append(publish(topic, b"21.5", packet_id=packet_id))
        expected.append(puback(packet_id))
    wire.send(*packets)
    acknowledged, answers = [], []
    while len(acknowledged) < len(expected) or len(answers) < 200:
        data = wire.receive()
        if data[0] == 0x40:
            acknowledged.append(data)
        else:
            answers.append(published(data)[0])
    assert acknowledged == expected
    assert answers == [f"$iothub/twin/res/200/?$rid={number}" for number in range(5, 2001, 10)]


def test_a_message_and_its_answer_come_before_those_of_the_next(
    online: Online, device: Device
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(
        publish("$iothub/twin/GET/?$rid=a", packet_id=1),
        publish(f"devices/{device.id}/messages/events/", packet_id=2),
        publish(f"{_REPORTED}?$rid=b", b'{"a": 1}', packet_id=3),
    )
    wire.expect(puback(1))
    wire.expect_publish("$iothub/twin/res/200/?$rid=a")
    wire.expect(puback(2), puback(3))
    wire.expect_publish("$iothub/twin/res/204/?$rid=b&$version=2", b"")


def test_a_packet_id_may_be_used_again_at_once(online: Online, device: Device) -> None:
    wire = online(device)
    topic = f"devices/{device.id}/messages/events/"
    wire.send(publish(topic, b"1", packet_id=7), publish(topic, b"2", packet_id=7))
    wire.expect(puback(7), puback(7))


# --- what a hub does not take


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "telemetry",
        "devices/{id}",
        "devices/{id}/messages",
        "devices/{id}/messages/",
        "devices/{id}/messages/eventsx/",
        "devices/{id}/messages/Events/",
        "devices/{id}/messages/events/a=1/b=2",
        "Devices/{id}/messages/events/",
        "/devices/{id}/messages/events/",
        "devices/{id}/messages/devicebound/",
        "devices//messages/events/",
        "$iothub/",
        "$iothub",
        "$iothub/twin",
        "$iothub/twin/",
        "$iothub/twin/GET",
        "$iothub/twin/GET/",
        "$iothub/twin/GET/?",
        "$iothub/twin/GET/?rid=1",
        "$iothub/twin/get/?$rid=1",
        "$iothub/Twin/GET/?$rid=1",
        "$iothub/twin/GET/x/?$rid=1",
        "$iothub/twin/PATCH/properties/reported",
        "$iothub/twin/PATCH/properties/reported/x",
        "$iothub/twin/PATCH/properties/desired/?$rid=1",
        "$iothub/twin/PUT/properties/reported/?$rid=1",
        "$iothub/methods/res/?$rid=1",
        "$iothub/methods/res/200/",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/res/2.5/?$rid=1",
        "$iothub/methods/res/2147483648/?$rid=1",
        "$SYS/broker/uptime",
        "$other/twin/GET/?$rid=1",
    ],
)
@pytest.mark.parametrize("packet_id", [None, 1], ids=["QoS 0", "QoS 1"])
def test_any_other_topic_ends_the_connection(
    online: Online, device: Device, topic: str, packet_id: int | None
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(topic.format(id=device.id), b"{}", packet_id=packet_id))
    wire.expect_closed()


@pytest.mark.parametrize(
    "topic",
    [
        "devices/{id}/messages/events/#",
        "devices/{id}/messages/events/a=+",
        "devices/{id}/messages/events/a=\0",
        "$iothub/twin/GET/?$rid=#",
        "$iothub/twin/GET/?$rid=a+b",
        "$iothub/twin/GET/?$rid=\0",
    ],
)
def test_a_topic_with_a_wildcard_or_nul_ends_the_connection(
    online: Online, device: Device, topic: str
) -> None:
    # MQTT 3.1.1, 3.3.2.1 and 1.5.3: no topic name holds them.
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(topic.format(id=device.id), packet_id=1))
    wire.expect_closed()


def test_what_came_before_a_bad_packet_is_still_answered(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device)
    wire.send(
        publish(f"{_REPORTED}?$rid=1", b'{"before": 1}', packet_id=1),
        publish("no/such/topic", packet_id=2),
        publish(f"{_REPORTED}?$rid=3", b'{"after": 1}', packet_id=3),
    )
    wire.expect(puback(1))
    wire.expect_closed()
    reported = service.request("GET", f"/twins/{device.id}").json()["properties"]["reported"]
    assert reported["before"] == 1
    assert "after" not in reported


# --- sizes


def test_a_message_of_256_kb_is_taken(online: Online, device: Device) -> None:
    topic = f"devices/{device.id}/messages/events/"
    payload = bytes(_LARGEST_MESSAGE - 1024)  # properties, even those that the hub adds, count
    wire = online(device)
    wire.send(publish(topic, payload, packet_id=1))
    wire.expect(puback(1))


def test_a_larger_message_ends_the_connection(online: Online, device: Device) -> None:
    wire = online(device)
    wire.send_what_goes(
        publish(f"devices/{device.id}/messages/events/", bytes(_LARGEST_MESSAGE + 1), packet_id=1)
    )
    wire.expect_closed()


def test_a_topic_may_be_as_long_as_mqtt_lets_it_be(online: Online, device: Device) -> None:
    topic = f"devices/{device.id}/messages/events/a="
    wire = online(device)
    wire.send(publish(topic.ljust(65535, "x"), packet_id=1))
    wire.expect(puback(1))


def test_a_request_id_may_be_as_long_as_the_answers_topic_lets_it_be(
    online: Online, device: Device
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    request_id = "x" * (65535 - len("$iothub/twin/res/200/?$rid="))
    wire.send(publish(f"$iothub/twin/GET/?$rid={request_id}", packet_id=1))
    wire.expect(puback(1))
    wire.expect_publish(f"$iothub/twin/res/200/?$rid={request_id}")


def test_a_request_id_that_is_too_long_for_the_answers_topic_ends_the_connection(
    online: Online, device: Device
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish("$iothub/twin/GET/?$rid=".ljust(65535, "x"), packet_id=1))
    data = wire.receive()
    assert data == puback(1)
    wire.expect_closed()


# --- a device that doesn't read


def test_a_device_that_does_not_read_what_the_hub_sends_is_closed(
    dial: Dial, greet: Greet, online: Online, service: Service, device: Device, other_device: Device
) -> None:
    deaf = dial(receive_buffer=4096)
    deaf.send(greet(device), subscribe(1, _DESIRED))
    deaf.expect(connack(0), suback(1, 0))
    other = online(other_device, _DESIRED)
    values = {f"key{number}": "x" * 4000 for number in range(7)}
    body = {"properties": {"desired": values}}
    # What the system itself takes on loopback is some megabytes at the most.
    for _ in range((limits.MQTT_WRITE_BUFFER_BYTES + 8 * 1024 * 1024) // 28_000):
        service.request("PATCH", f"/twins/{device.id}", json=body)
    deadline = time.monotonic() + 5
    path = f"/devices/{device.id}"
    while service.request("GET", path).json()["connectionState"] == "Connected":
        assert time.monotonic() < deadline
    service.request("PATCH", f"/twins/{other_device.id}", json=body)
    other.expect_publish("$iothub/twin/PATCH/properties/desired/?$version=2")


def test_messages_for_a_device_that_does_not_read_them_stay_in_their_queue(
    dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    """With QoS 0 a cloud-to-device message is gone once it is sent: it waits before that."""
    deaf = dial(receive_buffer=4096)
    deaf.send(greet(device), subscribe(1, f"devices/{device.id}/messages/devicebound/#"))
    deaf.expect(connack(0), suback(1, 0))
    path = f"/_emulator/devices/{device.id}/messages"
    # What the hub may hold, what the systems between hold, and the queue.
    most = (limits.MQTT_WRITE_BUFFER_BYTES + 8 * 1024 * 1024) // 60_000 + limits.C2D_QUEUE_DEPTH
    for _ in range(most):
        answer = service.request("POST", path, json={"body": "x" * 60_000})
        if answer.status_code != 204:
            break
    assert answer.headers["iothub-errorcode"] == "DeviceMaximumQueueDepthExceeded"
    document = service.request("GET", f"/devices/{device.id}").json()
    assert document["connectionState"] == "Connected"
    assert document["cloudToDeviceMessageCount"] == limits.C2D_QUEUE_DEPTH


def test_a_device_that_does_not_read_its_answers_does_not_fill_the_memory(
    dial: Dial, greet: Greet, online: Online, service: Service, device: Device, other_device: Device
) -> None:
    deaf = dial(receive_buffer=4096)
    deaf.send(greet(device), subscribe(1, _TWIN_ANSWERS))
    deaf.expect(connack(0), suback(1, 0))
    values = {f"key{number}": "x" * 4000 for number in range(7)}
    deaf.send(publish(f"{_REPORTED}?$rid=1", json.dumps(values).encode()))
    deaf.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")

    path = f"/devices/{device.id}"
    before = service.request("GET", path).json()["lastActivityTime"]
    tracemalloc.start()
    try:
        deaf.send(*[publish("$iothub/twin/GET/?$rid=1")] * 2000)  # 60 KB; the answers: 56 MB
        deadline = time.monotonic() + 5
        while service.request("GET", path).json()["lastActivityTime"] == before:
            assert time.monotonic() < deadline
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * limits.MQTT_WRITE_BUFFER_BYTES
    other = online(other_device, _TWIN_ANSWERS)
    other.send(publish("$iothub/twin/GET/?$rid=1"))
    other.expect_publish("$iothub/twin/res/200/?$rid=1")


def test_a_device_that_reads_late_still_gets_all_its_answers(
    dial: Dial, greet: Greet, device: Device
) -> None:
    wire = dial(receive_buffer=4096)
    wire.send(greet(device), subscribe(1, _TWIN_ANSWERS))
    wire.expect(connack(0), suback(1, 0))
    values = {f"key{number}": "x" * 4000 for number in range(7)}
    wire.send(publish(f"{_REPORTED}?$rid=0", json.dumps(values).encode()))
    wire.expect_publish("$iothub/twin/res/204/?$rid=0&$version=2", b"")
    wire.send(*[publish(f"$iothub/twin/GET/?$rid={number}") for number in range(100)])
    for number in range(100):
        wire.expect_publish(f"$iothub/twin/res/200/?$rid={number}")
    wire.expect_nothing()
