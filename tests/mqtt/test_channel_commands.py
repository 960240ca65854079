"""Cloud-to-device messages over MQTT: delivery, acknowledgement, redelivery, and the feedback."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from emulator.hub.core.errors import DeviceMaximumQueueDepthExceeded, MessageTooLarge
from emulator.hub.messages.message import Message
from tests.mqtt.playbook import Client, Lab
from tests.mqtt.raw import puback

_FILTER = "devices/d1/messages/devicebound/#"
_TOPIC = "devices/d1/messages/devicebound/"


@pytest.fixture
def client(lab: Lab) -> Client:
    """A connection of `d1` that receives messages with QoS 1."""
    return lab.connect("d1", f"{_FILTER}:1", clean=False)


def _again(lab: Lab) -> Client:
    """Connect with the session of an earlier connection."""
    return lab.connect(clean=False, session_present=True)


# --- what a message looks like


def test_a_message_brings_its_properties_in_its_topic_in_the_order_of_a_real_hub(lab: Lab) -> None:
    """The order was seen there."""
    system = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "user-id": "me & you",
        "correlation-id": "c=1",
        "to": "/devices/d1/messages/deviceBound",
        "absolute-expiry-time": "2026-01-31T15:00:00Z",
        "message-id": "m:1",
    }
    properties = {"colour": "blå grøn", "empty": "", "a%b": "x=y&z/#+", "iothub-ack": "full"}
    client = lab.connect("d1", _FILTER)
    lab.hub.cloud_to_device.send("d1", Message(b"body", system, properties))
    topic, body = client.take_publish()
    assert body == b"body"
    bag = topic.removeprefix(_TOPIC)
    assert bag.isascii()
    assert not set(bag) & set("/+#$ ")
    assert [tuple(map(unquote, pair.split("="))) for pair in bag.split("&")] == [
        ("$.mid", "m:1"),
        ("$.exp", "2026-01-31T15:00:00Z"),
        ("$.to", "/devices/d1/messages/deviceBound"),
        ("$.cid", "c=1"),
        ("$.uid", "me & you"),
        ("$.ct", "application/json"),
        ("$.ce", "utf-8"),
        ("iothub-ack", "full"),
        ("colour", "blå grøn"),
        ("empty", ""),
        ("a%b", "x=y&z/#+"),
    ]


def test_a_message_of_64_kb_arrives_and_a_larger_one_is_refused(lab: Lab, client: Client) -> None:
    lab.send("x" * 65_536)
    assert client.take_message() == (1, "x" * 65_536)
    with pytest.raises(MessageTooLarge):
        lab.send("x" * 65_537)
    client.expect_nothing()


def test_a_message_that_no_topic_can_carry_is_rejected(
    lab: Lab, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """64 KB of properties may be 192 KB once they are percent-encoded; a topic is 64 KB."""
    lab.send("too much", message_id="large", ack="full", key="%" * 30_000)
    client.expect_nothing()
    assert lab.feedback() == [("large", "Rejected")]
    assert "Rejected a message for d1: its properties take 90" in caplog.text
    lab.send("next")
    assert client.take_message()[1] == "next"


# --- delivery


def test_messages_wait_for_a_device_that_is_not_subscribed(lab: Lab) -> None:
    lab.send("away")
    client = lab.connect()
    lab.send("connected")
    client.expect_nothing()
    assert lab.pending() == 2
    client.play(f"""
        >> SUBSCRIBE 1 {_FILTER}:1
        << SUBACK 1 1
        << PUBLISH 1 {_TOPIC} away
        << PUBLISH 2 {_TOPIC} connected
        >> PUBACK 1
        >> PUBACK 2
        >> UNSUBSCRIBE 2 {_FILTER}
        << UNSUBACK 2
    """)
    lab.send("late")
    client.play(f">> SUBSCRIBE 1 {_FILTER}:0", "<< SUBACK 1 0", f"<< PUBLISH {_TOPIC} late")
    assert lab.pending() == 0


def test_a_persistent_session_receives_messages_again_by_itself(lab: Lab, client: Client) -> None:
    client.lose()
    lab.send("away")
    _again(lab).play(f"<< PUBLISH 1 {_TOPIC} away", ">> PUBACK 1")
    assert lab.pending() == 0


def test_with_clean_session_1_messages_wait_for_a_subscription(lab: Lab, client: Client) -> None:
    client.lose()
    lab.send("away")
    lab.connect(clean=True).play(f"""
        >> SUBSCRIBE 1 {_FILTER}:1
        << SUBACK 1 1
        << PUBLISH 1 {_TOPIC} away
    """)


def test_a_queue_of_50_messages_arrives_in_order_and_has_no_room_for_more(lab: Lab) -> None:
    for number in range(50):
        lab.send(str(number))
    with pytest.raises(DeviceMaximumQueueDepthExceeded):
        lab.send("one too many")
    client = lab.connect("d1", f"{_FILTER}:1")
    taken = [client.take_message() for _ in range(50)]
    assert [body for _, body in taken] == [str(number) for number in range(50)]
    assert len({packet_id for packet_id, _ in taken}) == 50
    # Messages in flight count; the first that ends makes room.
    with pytest.raises(DeviceMaximumQueueDepthExceeded):
        lab.send("one too many")
    client.send(puback(taken[0][0]))
    lab.send("now")
    assert client.take_message()[1] == "now"


def test_a_deleted_device_takes_its_messages_and_feedback_with_it(lab: Lab, client: Client) -> None:
    for body in ("ended", "waits"):
        lab.send(body, message_id=body, ack="full")
    client.take()
    client.take()
    client.send(puback(1))
    lab.delete("d1")
    client.expect_closed()
    lab.register("d1")
    assert lab.pending() == 0
    lab.connect("d1", _FILTER).expect_nothing()
    assert lab.feedback() == []


# --- acknowledgement


def test_messages_in_flight_are_acknowledged_in_any_order(lab: Lab, client: Client) -> None:
    for body in "abcde":
        lab.send(body)
    packet_ids = {body: packet_id for packet_id, body in (client.take_message() for _ in range(5))}
    client.send(puback(packet_ids["d"]), puback(packet_ids["b"]))
    assert lab.pending() == 3
    client.lose()
    _again(lab).play(f"""
        << PUBLISH +dup 1 {_TOPIC} a
        << PUBLISH +dup 2 {_TOPIC} c
        << PUBLISH +dup 3 {_TOPIC} e
    """)


def test_an_acknowledgement_of_nothing_is_ignored(lab: Lab, client: Client) -> None:
    lab.send("one")
    client.play(f"""
        << PUBLISH 1 {_TOPIC} one
        >> PUBACK 2
        >> PUBACK 0
        >> PUBACK 65535
    """)
    assert lab.pending() == 1
    client.play(">> PUBACK 1", ">> PUBACK 1")
    assert lab.pending() == 0


def test_an_acknowledgement_does_not_outlive_its_connection(lab: Lab, client: Client) -> None:
    lab.send("one")
    packet_id, _ = client.take_message()
    client.lose()
    again = lab.connect()
    again.send(puback(packet_id))
    again.expect_nothing()
    assert lab.pending() == 1


def test_with_qos_0_a_message_ends_when_it_is_sent(lab: Lab) -> None:
    client = lab.connect("d1", _FILTER)
    lab.send("one", message_id="m", ack="full")
    client.play(f"<< PUBLISH {_TOPIC}%24.mid=m&iothub-ack=full one")
    assert lab.pending() == 0
    assert lab.feedback() == [("m", "Success")]


@pytest.mark.parametrize(("qos", "packet"), [(1, " +dup 1"), (0, "")])
def test_a_takeover_redelivers_what_was_not_acknowledged(
    lab: Lab, client: Client, qos: int, packet: str
) -> None:
    """MQTT 3.1.1, section 3.3.1.1: DUP must be 0 with QoS 0."""
    for body in ("one", "two"):
        lab.send(body)
    client.play(f"<< PUBLISH 1 {_TOPIC} one", f"<< PUBLISH 2 {_TOPIC} two", ">> PUBACK 1")
    again = lab.connect()
    client.expect_closed()
    again.play(f"""
        >> SUBSCRIBE 1 {_FILTER}:{qos}
        << SUBACK 1 {qos}
        << PUBLISH{packet} {_TOPIC} two
    """)
    assert lab.pending() == qos


def test_packet_identifiers_in_flight_are_not_used_again(lab: Lab, client: Client) -> None:
    lab.send("held")
    assert client.take_message()[0] == 1
    client.channel._deliveries._packet_id = 65_534  # as after so many messages
    for packet_id in (65_535, 2):
        lab.send("next")
        assert client.take_message()[0] == packet_id


# --- feedback


@pytest.mark.parametrize(
    ("ack", "outcomes"),
    [
        (None, []),
        ("none", []),
        ("positive", ["Success"]),
        ("negative", ["Purged"]),
        ("full", ["Success", "Purged"]),
    ],
)
def test_the_sender_receives_the_feedback_that_it_asked_for(
    lab: Lab, client: Client, ack: str | None, outcomes: list[str]
) -> None:
    level = {} if ack is None else {"ack": ack}
    lab.send("taken", message_id="taken", **level)
    client.send(puback(client.take_message()[0]))
    lab.send("held", message_id="held", **level)
    client.take()
    assert lab.hub.cloud_to_device.purge("d1") == 1
    ids = {"Success": "taken", "Purged": "held"}
    assert lab.feedback() == [(ids[outcome], outcome) for outcome in outcomes]
    client.send(puback(2))  # of the message that was purged
    lab.send("next")
    assert client.take_message()[1] == "next"
