"""Cloud-to-device messages over MQTT: delivery, acknowledgement, redelivery, and the feedback."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from tests.messages import pending, send, take_feedback, try_to_send, wait_until
from tests.mqtt.raw import (
    DISCONNECT,
    Dial,
    Greet,
    Online,
    Wire,
    connack,
    describe,
    puback,
    published,
    suback,
    subscribe,
    unsuback,
    unsubscribe,
)
from tests.support import Device, Service


def _filter(device: Device) -> str:
    return f"devices/{device.id}/messages/devicebound/#"


def _listen(wire: Wire, device: Device, qos: int = 1) -> Wire:
    wire.send(subscribe(1, (_filter(device), qos)))
    wire.expect(suback(1, qos))
    return wire


@pytest.fixture
def listening(online: Online, device: Device) -> Wire:
    """A connection of `device` that takes messages with QoS 1."""
    return _listen(online(device, clean=False), device)


def _take(wire: Wire, *, duplicate: bool = False) -> tuple[int, str]:
    """Receive a message with QoS 1; gives its packet id and its body."""
    data = wire.receive()
    assert data[0] == (0x3A if duplicate else 0x32), describe(data)
    topic, body = published(data)
    packet_id = int.from_bytes(data.partition(topic.encode())[2][:2], "big")
    assert packet_id > 0
    return packet_id, body.decode()


def _in(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- what a message looks like


def test_a_message_brings_its_properties_in_its_topic(
    online: Online, service: Service, device: Device
) -> None:
    wire = _listen(online(device), device, qos=0)
    expiry = _in(1000)
    send(
        service,
        device,
        "body",
        messageId="m:1",
        correlationId="c=1",
        userId="me & you",
        contentType="application/json",
        contentEncoding="utf-8",
        expiryTimeUtc=expiry,
        ack="full",
        properties={"colour": "blå grøn", "empty": "", "a%b": "x=y&z/#+"},
    )
    topic, body = wire.receive_publish()
    assert body == b"body"
    start = f"devices/{device.id}/messages/devicebound/"
    assert topic.startswith(start)
    bag = topic[len(start) :]
    assert bag.isascii()
    assert not set(bag) & set("/+#$ ")
    assert {unquote(k): unquote(v) for k, v in (pair.split("=") for pair in bag.split("&"))} == {
        "$.mid": "m:1",
        "$.cid": "c=1",
        "$.uid": "me & you",
        "$.to": f"/devices/{device.id}/messages/deviceBound",
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "$.exp": expiry,
        "iothub-ack": "full",
        "colour": "blå grøn",
        "empty": "",
        "a%b": "x=y&z/#+",
    }


def test_the_properties_stand_in_the_order_of_a_real_hub(
    online: Online, service: Service, device: Device
) -> None:
    """Seen there: `$.mid`, `$.exp`, `$.to`, `$.cid`, `$.ct`, `$.ce`, `iothub-ack`, and the rest."""
    wire = _listen(online(device), device, qos=0)
    send(
        service,
        device,
        properties={"b": "", "a": ""},
        ack="none",
        contentEncoding="utf-8",
        contentType="text/plain",
        correlationId="c",
        messageId="m",
        expiryTimeUtc=_in(1000),
    )
    bag = wire.receive_publish()[0].rpartition("/")[2]
    names = [unquote(pair.partition("=")[0]) for pair in bag.split("&")]
    assert names == [
        "$.mid", "$.exp", "$.to", "$.cid", "$.ct", "$.ce", "iothub-ack", "b", "a",
    ]  # fmt: skip


def test_a_message_of_64_kb_arrives_and_a_larger_one_is_refused(
    listening: Wire, service: Service, device: Device
) -> None:
    to = len(f"/devices/{device.id}/messages/deviceBound")
    body = "x" * (65_536 - to)
    send(service, device, body)
    assert _take(listening) == (1, body)
    refused = try_to_send(service, device, body=body + "x")
    assert (refused.status_code, refused.headers["iothub-errorcode"]) == (413, "MessageTooLarge")
    listening.expect_nothing()


# --- who gets it, and when


def test_a_message_is_for_its_device_alone(
    online: Online, service: Service, device: Device, other_device: Device
) -> None:
    wire = _listen(online(device), device)
    other = _listen(online(other_device), other_device)
    send(service, device, "mine")
    assert _take(wire)[1] == "mine"
    other.expect_nothing()


def test_messages_wait_for_a_device_that_does_not_listen(
    online: Online, service: Service, device: Device
) -> None:
    send(service, device, "away")
    wire = online(device)
    send(service, device, "connected")
    wire.expect_nothing()
    assert pending(service, device) == 2
    _listen(wire, device)
    send(service, device, "listening")
    assert [_take(wire)[1] for _ in range(3)] == ["away", "connected", "listening"]


def test_a_device_that_stops_listening_gets_no_more(
    listening: Wire, service: Service, device: Device
) -> None:
    listening.send(unsubscribe(2, _filter(device)))
    listening.expect(unsuback(2))
    send(service, device, "late")
    listening.expect_nothing()
    assert pending(service, device) == 1
    _listen(listening, device)
    assert _take(listening)[1] == "late"


def test_a_session_that_ended_with_clean_session_0_listens_again_by_itself(
    listening: Wire, dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    listening.send(DISCONNECT)
    listening.expect_closed()
    send(service, device, "away")
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=True))
    packet_id, body = _take(wire)
    assert body == "away"
    wire.send(puback(packet_id))
    wire.expect_nothing()
    assert pending(service, device) == 0


def test_with_clean_session_1_a_device_gets_nothing_before_it_subscribes(
    listening: Wire, online: Online, service: Service, device: Device
) -> None:
    listening.send(DISCONNECT)
    listening.expect_closed()
    send(service, device, "away")
    wire = online(device, clean=True)
    wire.expect_nothing()
    _listen(wire, device)
    assert _take(wire)[1] == "away"


def test_messages_arrive_in_order(listening: Wire, service: Service, device: Device) -> None:
    bodies = [str(number) for number in range(20)]
    for body in bodies:
        send(service, device, body)
    taken = [_take(listening) for _ in bodies]
    assert [body for _, body in taken] == bodies
    assert len({packet_id for packet_id, _ in taken}) == len(bodies)


# --- acknowledging


def test_messages_in_flight_are_acknowledged_in_any_order(
    listening: Wire, dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    for body in "abcde":
        send(service, device, body)
    packet_ids = {body: packet_id for packet_id, body in (_take(listening) for _ in range(5))}
    listening.send(puback(packet_ids["d"]), puback(packet_ids["b"]))
    listening.expect_nothing()
    assert pending(service, device) == 3
    listening.close()
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=True))
    assert [_take(wire, duplicate=True)[1] for _ in range(3)] == ["a", "c", "e"]


def test_an_acknowledgement_of_nothing_is_ignored(
    listening: Wire, service: Service, device: Device
) -> None:
    send(service, device, "one")
    packet_id, _ = _take(listening)
    listening.send(puback(packet_id + 1), puback(0), puback(65535))
    listening.expect_nothing()
    assert pending(service, device) == 1
    listening.send(puback(packet_id), puback(packet_id))
    listening.expect_nothing()
    assert pending(service, device) == 0


def test_an_acknowledgement_does_not_outlive_its_connection(
    listening: Wire, online: Online, service: Service, device: Device
) -> None:
    send(service, device, "one")
    packet_id, _ = _take(listening)
    listening.close()
    wire = online(device)
    wire.send(puback(packet_id))
    wire.expect_nothing()
    assert pending(service, device) == 1


def test_with_qos_0_a_message_has_ended_when_it_is_sent(
    online: Online, service: Service, device: Device
) -> None:
    wire = _listen(online(device), device, qos=0)
    send(service, device, "one", messageId="m", ack="full")
    assert wire.receive_publish()[1] == b"one"
    assert pending(service, device) == 0
    assert take_feedback(service, device) == [("m", "Success")]


def test_a_takeover_redelivers_what_was_not_acknowledged(
    listening: Wire, dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    for body in ("one", "two"):
        send(service, device, body)
    packet_id, _ = _take(listening)
    listening.send(puback(packet_id))
    _take(listening)
    listening.expect_nothing()
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=True))
    assert _take(wire, duplicate=True)[1] == "two"
    listening.expect_closed()
    wire.expect_nothing()
    assert pending(service, device) == 1


def test_a_redelivery_with_qos_0_is_not_marked_as_a_duplicate(
    listening: Wire, online: Online, service: Service, device: Device
) -> None:
    """MQTT 3.1.1, section 3.3.1.1: DUP must be 0 with QoS 0."""
    send(service, device, "one")
    _take(listening)
    wire = _listen(online(device), device, qos=0)
    assert wire.receive_publish()[1] == b"one"


# --- what is refused, and what ends a message


def test_fifty_messages_may_wait_and_no_more(
    online: Online, service: Service, device: Device
) -> None:
    for number in range(50):
        send(service, device, str(number))
    refused = try_to_send(service, device, body="one too many")
    assert refused.status_code == 403
    assert refused.headers["iothub-errorcode"] == "DeviceMaximumQueueDepthExceeded"
    assert pending(service, device) == 50
    wire = _listen(online(device), device)
    taken = [_take(wire) for _ in range(50)]
    assert [body for _, body in taken] == [str(number) for number in range(50)]
    # Those in flight count; the first that ends makes room.
    assert try_to_send(service, device, body="still too many").status_code == 403
    wire.send(puback(taken[0][0]))
    wire.expect_nothing()
    send(service, device, "now")
    assert _take(wire)[1] == "now"


def test_nobody_can_send_to_a_device_that_is_disabled_or_unknown(
    online: Online, service: Service, device: Device
) -> None:
    send(service, device, "before")
    identity = service.request("GET", f"/devices/{device.id}").json()
    for status, code in (("disabled", 404), ("enabled", 204)):
        identity["status"] = status
        path, headers = f"/devices/{device.id}", {"If-Match": "*"}
        assert service.request("PUT", path, json=identity, headers=headers).ok
        answer = try_to_send(service, device, body=status)
        assert answer.status_code == code
        assert answer.headers.get("iothub-errorcode", "") == ("" if answer.ok else "DeviceNotFound")
    unknown = try_to_send(service, device._replace(id=f"{device.id}-unknown"), body="x")
    assert (unknown.status_code, unknown.headers["iothub-errorcode"]) == (404, "DeviceNotFound")
    # A disabled device keeps its queue.
    wire = _listen(online(device), device)
    assert [_take(wire)[1] for _ in range(2)] == ["before", "enabled"]


def test_a_deleted_device_takes_its_messages_and_feedback_with_it(
    listening: Wire, online: Online, service: Service, device: Device
) -> None:
    send(service, device, "ended", messageId="ended", ack="full")
    send(service, device, "waits", messageId="waits", ack="full")
    listening.send(puback(_take(listening)[0]))
    _take(listening)
    listening.expect_nothing()
    identity = service.request("GET", f"/devices/{device.id}").json()
    path = f"/devices/{device.id}"
    assert service.request("DELETE", path, headers={"If-Match": "*"}).status_code == 204
    listening.expect_closed()
    assert service.request("PUT", path, json=identity).status_code == 200
    assert pending(service, device) == 0
    _listen(online(device), device).expect_nothing()
    assert take_feedback(service, device) == []


@pytest.mark.parametrize(
    ("members", "status", "name"),
    [
        ({"expiryTimeUtc": "2020-01-01T00:00:00Z"}, 403, "InvalidMessageExpiryTime"),
        ({"expiryTimeUtc": "2999-01-01T00:00:00Z"}, 403, "InvalidMessageExpiryTime"),
        ({"expiryTimeUtc": "tomorrow"}, 400, "ArgumentInvalid"),
        ({"ack": "maybe"}, 400, "ArgumentInvalid"),
        ({"messageId": "x" * 129}, 400, "ArgumentInvalid"),
        ({"messageId": "a b"}, 400, "ArgumentInvalid"),
        ({"properties": {"a b": "c"}}, 400, "ArgumentInvalid"),
    ],
)
def test_a_bad_message_is_refused_and_not_queued(
    service: Service, device: Device, members: dict[str, Any], status: int, name: str
) -> None:
    refused = try_to_send(service, device, body="x", **members)
    assert (refused.status_code, refused.headers["iothub-errorcode"]) == (status, name)
    assert pending(service, device) == 0


def test_an_expired_message_does_not_arrive(
    online: Online, service: Service, device: Device
) -> None:
    send(service, device, "short", messageId="short", ack="negative", expiryTimeUtc=_in(1))
    send(service, device, "long", messageId="long")
    assert pending(service, device) == 2
    wait_until(lambda: pending(service, device) == 1)
    wire = _listen(online(device), device)
    assert _take(wire)[1] == "long"
    assert take_feedback(service, device) == [("short", "Expired")]


# --- feedback


@pytest.mark.parametrize(
    ("ack", "heard"),
    [
        (None, []),
        ("none", []),
        ("positive", ["Success"]),
        ("negative", ["Purged"]),
        ("full", ["Success", "Purged"]),
    ],
)
def test_the_sender_hears_of_the_outcomes_that_it_asked_for(
    listening: Wire, service: Service, device: Device, ack: str | None, heard: list[str]
) -> None:
    level = {} if ack is None else {"ack": ack}
    send(service, device, "taken", messageId="taken", **level)
    listening.send(puback(_take(listening)[0]))
    listening.expect_nothing()
    send(service, device, "held", messageId="held", **level)
    _take(listening)
    assert service.request("DELETE", f"/devices/{device.id}/commands").ok
    ids = {"Success": "taken", "Purged": "held"}
    assert take_feedback(service, device) == [(ids[status], status) for status in heard]


def test_only_iothub_ack_asks_for_feedback(
    listening: Wire, service: Service, device: Device
) -> None:
    """An application property `ack`, which services set by mistake, is one like any other."""
    send(service, device, messageId="no", properties={"ack": "full"})
    send(service, device, messageId="yes", properties={"iothub-ack": "full"})
    listening.send(puback(_take(listening)[0]), puback(_take(listening)[0]))
    listening.expect_nothing()
    assert take_feedback(service, device) == [("yes", "Success")]


def test_a_purge_ends_what_the_device_holds_and_leaves_its_connection_alone(
    listening: Wire, service: Service, device: Device
) -> None:
    send(service, device, "held", messageId="held", ack="full")
    packet_id, _ = _take(listening)
    purged = service.request("DELETE", f"/devices/{device.id}/commands")
    assert purged.json()["totalMessagesPurged"] == 1
    listening.send(puback(packet_id))
    listening.expect_nothing()
    assert take_feedback(service, device) == [("held", "Purged")]
    send(service, device, "next")
    assert _take(listening)[1] == "next"
