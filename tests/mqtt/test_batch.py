"""A message like the last one takes a shorter way through the hub, with the same outcome."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emulator.mqtt import frame
from tests.mqtt.playbook import Lab
from tests.mqtt.raw import packet, puback, publish

_TOPIC = "devices/d1/messages/events/"
_BAG = f"{_TOPIC}%24.mid=1&a=b"
_LONG = publish(_TOPIC, bytes(17_000), packet_id=7)  # its length has three bytes


def _outcome(topic: str, *pieces: bytes) -> tuple[Any, ...]:
    """Return what a device sees that sends to a topic, and then something; and what the hub has."""
    lab = Lab()
    client = lab.connect()
    client.send(publish(topic))
    for piece in pieces:
        if not client.ended:
            client.send(piece)
    answers = []
    while client.has_packets:
        answers.append(client.take())
    events = [
        (each["body"] if "body" in each else each["bodyBase64"], each["systemProperties"],
         each["properties"])
        for each in lab.events()[1:]
    ]  # fmt: skip
    return answers, events, client.ended, client.error is not None


_MESSAGES = [
    publish(_TOPIC, b"x"),
    publish(_TOPIC, b"x", packet_id=5),
    publish(_TOPIC, packet_id=0xFFFF),
    publish(_BAG, b"\xff", packet_id=5),
    _LONG,
    packet(0x32, b"\x00\x1b" + _TOPIC.encode() + b"\x00\x00x"),  # packet identifier 0
    packet(0x32, b"\x00\x1b" + _TOPIC.encode() + b"\x01"),  # half of one
    packet(0x32, b"\x00\x1b" + _TOPIC.encode()),
    packet(0x34, b"\x00\x1b" + _TOPIC.encode() + b"\x00\x01x"),  # QoS 2
    packet(0x31, b"\x00\x1b" + _TOPIC.encode() + b"x"),  # retained
    packet(0x3A, b"\x00\x1b" + _TOPIC.encode() + b"\x00\x01x"),  # sent again
    packet(0x30, b"\x00\x1c" + _TOPIC.encode() + b"x"),  # another topic, which begins like it
    packet(0x40, b"\x00\x1b" + _TOPIC.encode()),  # not a PUBLISH
    publish(_TOPIC, b"x", packet_id=5)[:-1],  # not whole
    publish(_TOPIC, b"x", packet_id=5) + b"\xc0\x00",
    publish(_TOPIC, b"x", packet_id=5) * 3,
    publish("devices/d2/messages/events/", b"x", packet_id=5),
    publish("$iothub/twin/GET/?$rid=1"),
    b"\xc0\x00",
    b"",
]


@given(
    topic=st.sampled_from([_TOPIC, _BAG]),
    message=st.sampled_from(_MESSAGES),
    place=st.integers(0, 50),
    byte=st.none() | st.integers(0, 255),
)
@example(topic=_TOPIC, message=_LONG, place=0, byte=None)
def test_both_ways_have_the_same_outcome(
    topic: str, message: bytes, place: int, byte: int | None
) -> None:
    if byte is not None:
        message = message[:place] + bytes([byte]) + message[place + 1 :]
    shorter = _outcome(topic, message)
    # Its topic is not the last one; and no piece is a whole packet.
    longer = _outcome(f"{topic}c=d" if topic == _TOPIC else f"{topic}&c=d", message)
    pieces = _outcome(topic, message[:1], message[1:])
    assert shorter == longer == pieces


@pytest.mark.parametrize("message", _MESSAGES[:4])
def test_a_message_like_the_last_one_takes_the_shorter_way(
    monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    lab = Lab()
    client = lab.connect()
    client.send(message)
    monkeypatch.setattr(frame, "parse_publish", None)
    monkeypatch.setattr(frame.PacketBuffer, "feed", None)
    client.send(message)
    client.send(message)
    assert len(lab.events()) == 3
    assert client.error is None


def test_the_shorter_way_ends_with_the_connection(lab: Lab) -> None:
    client = lab.connect()
    client.send(publish(_TOPIC, packet_id=1))
    client.expect(puback(1))
    lab.delete("d1")
    assert client.ended
    client.send(publish(_TOPIC, packet_id=2))
    assert not client.has_packets
    assert len(lab.events()) == 1
