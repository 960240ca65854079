"""Bytes that nobody thought of. Whatever comes, the emulator logs no error of its own, and another
device is served.

A normal run tries a few; the environment variable FUZZ_EXAMPLES sets how many each test tries.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emulator import Emulator
from emulator.hub.identities.identity import IdentityKey
from emulator.mqtt import property_bag, topics
from emulator.mqtt.frame import PacketBuffer, ProtocolError, parse_publish
from emulator.mqtt.frame import publish as write_publish
from tests.mqtt.raw import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    Greet,
    Online,
    Wire,
    puback,
    publish,
    subscribe,
    unsubscribe,
)
from tests.mqtt.web_socket import WebSocketWire, frame
from tests.support import Device

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))

on_the_wire = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    # The fixtures are one for all examples: a running emulator is meant to outlive any bytes.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pure = settings(max_examples=2 * _EXAMPLES, deadline=None)

_DEVICE_ID = "fuzzed-device"
_PACKET_LIMIT = 1000

_WILL = (f"devices/{_DEVICE_ID}/messages/events/", b"gone")

# --- what is sent


def _mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that were a valid sequence of packets before chance had a hand in it."""
    positions = st.integers(0, len(valid))

    def flip(position: int, mask: int) -> bytes:
        changed = bytearray(valid)
        changed[position % len(valid)] ^= mask
        return bytes(changed)

    def cut_out(start: int, end: int) -> bytes:
        return valid[: min(start, end)] + valid[max(start, end) :]

    def repeat(start: int, end: int) -> bytes:
        return valid[: max(start, end)] + valid[min(start, end) :]

    def put_in(position: int, more: bytes) -> bytes:
        return valid[:position] + more + valid[position:]

    return st.one_of(
        st.builds(flip, positions, st.integers(1, 255)),
        st.builds(lambda end: valid[:end], positions),
        st.builds(cut_out, positions, positions),
        st.builds(repeat, positions, positions),
        st.builds(put_in, positions, st.binary(max_size=20)),
    )


_TOPICS = st.sampled_from(
    [
        "$iothub/twin/GET/?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=2",
        "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=3",
        "$iothub/methods/res/200/?$rid=1",
        f"devices/{_DEVICE_ID}/messages/events/",
        f"devices/{_DEVICE_ID}/messages/events/$.mid=1&a=b&c",
        "$iothub/twin/res/#",
        "$iothub/twin/PATCH/properties/desired/#",
        "$iothub/methods/POST/#",
        f"devices/{_DEVICE_ID}/messages/devicebound/#",
    ]
)
_PAYLOADS = st.one_of(
    st.sampled_from(
        [b"", b" ", b'{"a":1}', b'{"a":{"b":null}}', b"[]", b"{", b'{"$a":1}', b"\xff"]
    ),
    st.binary(max_size=30),
)
_IDS = st.integers(1, 0xFFFF)

_PACKETS = st.one_of(
    st.builds(publish, _TOPICS, _PAYLOADS),
    st.builds(lambda topic, payload, id_: publish(topic, payload, packet_id=id_),
              _TOPICS, _PAYLOADS, _IDS),
    st.builds(subscribe, _IDS, st.tuples(_TOPICS, st.integers(0, 3))),
    st.builds(unsubscribe, _IDS, _TOPICS),
    st.builds(puback, _IDS),
    st.sampled_from([PINGREQ, DISCONNECT]),
)  # fmt: skip

_SEQUENCES = st.lists(_PACKETS, min_size=1, max_size=5).map(b"".join)


# --- who is there


class Ground:
    """A running emulator, a device to send as, and a bystander who must notice nothing."""

    def __init__(
        self,
        emulator: Emulator,
        trust: ssl.SSLContext,
        greeting: bytes,
        bystander: Wire,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.greeting = greeting
        self._emulator = emulator
        self._trust = trust
        self._bystander = bystander
        self._caplog = caplog

    def dial(self) -> Wire:
        return Wire((self._emulator.host_name, self._emulator.mqtt_port), self._trust)

    def dial_web_socket(self) -> WebSocketWire:
        return WebSocketWire(self._emulator.host_name, self._emulator.https_port, self._trust)

    def look(self) -> None:
        """The emulator has logged no error, and the bystander is served."""
        self._bystander.send(publish("$iothub/twin/GET/?$rid=1"), PINGREQ)
        self._bystander.expect_publish("$iothub/twin/res/200/?$rid=1")
        self._bystander.expect(PINGRESP)
        errors = [each for each in self._caplog.records if each.levelno >= logging.ERROR]
        assert not errors, [(each.name, each.getMessage(), each.exc_info) for each in errors]


@pytest.fixture(scope="module")
def fuzzed_device(emulator: Emulator) -> Device:
    connection_string = emulator.register_device(_DEVICE_ID)
    key = connection_string.partition(";SharedAccessKey=")[2]
    return Device(_DEVICE_ID, key, connection_string)


@pytest.fixture
def ground(
    emulator: Emulator,
    trust: ssl.SSLContext,
    greet: Greet,
    online: Online,
    fuzzed_device: Device,
    other_device: Device,
    caplog: pytest.LogCaptureFixture,
) -> Ground:
    bystander = online(other_device, "$iothub/twin/res/#")
    return Ground(emulator, trust, greet(fuzzed_device, will=_WILL), bystander, caplog)


def _exchange(wire: Wire, data: bytes) -> None:
    """Send all that there is, and wait until the hub has made what it can of it."""
    wire.send_what_goes(data)
    connection = wire._tls if isinstance(wire, WebSocketWire) else wire._socket
    with suppress(OSError):  # the hub was faster
        connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):
        while connection.recv(65536):  # below TLS by now; the end is all that matters
            pass


# --- over the wire


@on_the_wire
@given(st.binary(max_size=200))
def test_arbitrary_bytes_instead_of_a_connect(ground: Ground, data: bytes) -> None:
    with ground.dial() as wire:
        _exchange(wire, data)
    ground.look()


@on_the_wire
@given(st.binary(max_size=200))
def test_arbitrary_bytes_behind_a_connect(ground: Ground, data: bytes) -> None:
    with ground.dial() as wire:
        _exchange(wire, ground.greeting + data)
    ground.look()


@on_the_wire
@given(st.data())
def test_a_mutated_connect(ground: Ground, data: st.DataObject) -> None:
    greeting = data.draw(_mutated(ground.greeting))
    with ground.dial() as wire:
        _exchange(wire, greeting + PINGREQ)
    ground.look()


@on_the_wire
@given(_SEQUENCES.flatmap(_mutated))
def test_mutated_packets(ground: Ground, data: bytes) -> None:
    with ground.dial() as wire:
        _exchange(wire, ground.greeting + data)
    ground.look()


@on_the_wire
@given(_SEQUENCES)
def test_packets_that_are_whole_but_make_no_sense_together(ground: Ground, data: bytes) -> None:
    with ground.dial() as wire:
        _exchange(wire, ground.greeting + data)
    ground.look()


@on_the_wire
@given(_SEQUENCES.map(frame).flatmap(_mutated), st.booleans())
def test_mutated_frames_of_a_web_socket(ground: Ground, data: bytes, connected: bool) -> None:
    with ground.dial_web_socket() as wire:
        if connected:
            wire.send(ground.greeting)
        _exchange(wire, data)
    ground.look()


# --- pure functions: they give an answer, or say that the client broke a rule

_DEVICE = IdentityKey(_DEVICE_ID)
_MODULE = IdentityKey(_DEVICE_ID, "m")
_KEYS = st.sampled_from([_DEVICE, _MODULE])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_TOPIC_LIKE = st.one_of(
    _TEXTS,
    st.lists(
        st.one_of(
            st.sampled_from(
                ["$iothub", "twin", "GET", "PATCH", "properties", "reported", "methods", "res",
                 "POST", "devices", _DEVICE_ID, "modules", "m", "messages", "events", "200", "-1",
                 "devicebound", "inputs", "?$rid=1", "?$rid=1&$version=2", "?", "&", "#", "+", ""]
            ),
            st.text("$?&=/#+%Aé0", max_size=5),
        ),
        max_size=9,
    ).map("/".join),
)  # fmt: skip


@pure
@given(_TOPIC_LIKE, _KEYS)
@example("$iothub/methods/res/99999999999/?$rid=1", _DEVICE)
def test_any_topic_is_known_or_refused(topic: str, key: IdentityKey) -> None:
    try:
        request = topics.parse_topic(topic, key)
    except ProtocolError:
        return
    assert topic.startswith(("$iothub/", topics.events_topic(key))), request


@pure
@given(_TOPIC_LIKE, _KEYS)
def test_any_filter_is_known_or_refused(topic_filter: str, key: IdentityKey) -> None:
    try:
        known = topics.parse_filter(topic_filter, key)
    except ProtocolError:
        return
    assert topic_filter.endswith("/#")
    assert "+" not in (known.method or "")


@pure
@given(_TEXTS, _TEXTS)
def test_any_user_name_is_of_its_client_or_none(host: str, client_id: str) -> None:
    for user_name in (host, f"{host}/{client_id}", f"{host}/{client_id}/?{host}"):
        user = topics.parse_user_name(user_name, client_id)
        if user is not None:
            assert str(user.key) == client_id


@pure
@given(_TEXTS)
def test_any_property_bag_can_be_read_and_written_again(text: str) -> None:
    bag = property_bag.parse(text)
    assert property_bag.parse(property_bag.write(*bag)) == bag


@pure
@given(st.lists(_PACKETS, max_size=6), st.data())
def test_packets_come_out_whole_however_they_are_cut(
    packets: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    buffer, received = PacketBuffer(_PACKET_LIMIT), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += buffer.feed(stream[start:end])
    assert received == [(packet[0], packet[2:]) for packet in packets if packet[1] < 0x80]


@pure
@given(st.binary(max_size=100))
def test_any_bytes_are_cut_into_packets_or_refused(data: bytes) -> None:
    received: list[tuple[int, bytes]] = []
    try:
        received += PacketBuffer(_PACKET_LIMIT).feed(data)
    except ProtocolError:
        return
    assert sum(2 + len(body) for _, body in received) <= len(data)


@pure
@given(st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B]), st.binary(max_size=60))
def test_any_publish_is_read_as_it_was_written_or_refused(first_byte: int, body: bytes) -> None:
    try:
        packet = parse_publish(first_byte, body)
    except ProtocolError:
        return
    again = write_publish(
        packet.topic, packet.payload, packet_id=packet.packet_id, duplicate=packet.duplicate
    )
    assert again[2:] == body
    assert again[0] == first_byte & ~1
