"""Packets as bytes: cut from a stream, parsed and written."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest
from amqtt.adapters import BufferReader
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.packet import CONNECT, MQTTFixedHeader
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.mqtt import frame
from tests.mqtt import raw
from tests.mqtt.raw import text

_LIMIT = 300

_topics = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1, max_size=50
)
_packet_ids = st.integers(1, 65535)
# The first bytes of a client's packets: types with their flags (MQTT 3.1.1, section 2.2). A hub has
# no QoS 2, and DUP is not allowed with QoS 0.
_first_bytes = st.sampled_from(
    [0x10, 0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B, 0x40, 0x82, 0xA2, 0xC0, 0xE0]
)
# Complete packets, some of them too large, and invalid bytes.
_streams = st.lists(
    st.one_of(
        st.builds(raw.packet, _first_bytes, st.binary(max_size=20)),
        st.builds(raw.packet, _first_bytes, st.binary(min_size=120, max_size=140)),
        st.builds(raw.packet, _first_bytes, st.binary(min_size=295, max_size=305)),
        st.binary(max_size=10),
        st.sampled_from([b"\x30\xff\xff\xff\xff", b"\x30\x80\x80\x80\x80\x01", b"\x30\x80\x00"]),
    )
).map(b"".join)


def _cut(pieces: Iterable[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    """The packets of a stream until its end or its first error, and whether there was one."""
    buffer, received = frame.PacketBuffer(_LIMIT), []
    try:
        for piece in pieces:
            for packet in buffer.feed(piece):
                received.append(packet)  # those before an error count
    except frame.ProtocolError:
        return received, True
    return received, False


@settings(deadline=None)
@given(_streams, st.data())
def test_a_stream_is_the_same_packets_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [
        stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    whole = _cut([stream])
    assert _cut(pieces) == whole
    assert _cut(stream[at : at + 1] for at in range(len(stream))) == whole


@settings(deadline=None)
@given(st.lists(st.tuples(_first_bytes, st.binary(max_size=_LIMIT)), max_size=5))
def test_packets_come_out_as_they_went_in(sent: list[tuple[int, bytes]]) -> None:
    stream = b"".join(raw.packet(first_byte, body) for first_byte, body in sent)
    assert _cut([stream]) == (sent, False)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_a_length_of_one_to_four_bytes(size: int) -> None:
    buffer = frame.PacketBuffer(268_435_455)
    stream = raw.packet(0x30, bytes(size))
    assert list(buffer.feed(stream[:-1])) == []
    assert list(buffer.feed(stream[-1:])) == [(0x30, bytes(size))]


def test_a_packet_above_the_limit_is_refused_before_its_body_is_there() -> None:
    assert list(frame.PacketBuffer(300).feed(raw.packet(0x30, bytes(300)))) == [(0x30, bytes(300))]
    with pytest.raises(frame.ProtocolError):
        list(frame.PacketBuffer(300).feed(raw.packet(0x30, bytes(301))[:3]))


@pytest.mark.parametrize("data", [b"\x30\x80\x80\x80\x80", b"\xc0\xff\xff\xff\xff\x7f"])
def test_a_length_of_more_than_four_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(frame.ProtocolError):
        list(frame.PacketBuffer(268_435_455).feed(data))


@settings(deadline=None)
@given(st.integers(0, 255))
def test_a_first_byte_that_no_client_sends_is_refused_at_once(first_byte: int) -> None:
    kind, qos = first_byte >> 4, (first_byte >> 1) & 3
    fits = {
        1: first_byte == 0x10,
        3: qos == 1 or first_byte in (0x30, 0x31),
        4: first_byte == 0x40,
        8: first_byte == 0x82,
        10: first_byte == 0xA2,
        12: first_byte == 0xC0,
        14: first_byte == 0xE0,
    }
    packets_of_one_byte, refused = _cut([bytes([first_byte])])
    assert packets_of_one_byte == []
    assert refused is not fits.get(kind, False)


@settings(deadline=None)
@given(st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B]), st.binary())
def test_any_bytes_are_a_publish_or_an_error_of_the_client(first_byte: int, body: bytes) -> None:
    with contextlib.suppress(frame.ProtocolError):
        packet = frame.parse_publish(first_byte, body)
        again = raw.publish(
            packet.topic,
            packet.payload,
            packet_id=packet.packet_id or None,
            dup=packet.duplicate,
            retain=packet.retain,
        )
        assert raw.split(again) == (first_byte, body)


@settings(deadline=None)
@given(_topics, st.binary(), _packet_ids | st.none(), st.booleans(), st.booleans())
def test_a_publish_is_read_as_it_was_built(
    topic: str, payload: bytes, packet_id: int | None, dup: bool, retain: bool
) -> None:
    dup = dup and packet_id is not None
    data = raw.publish(topic, payload, packet_id=packet_id, dup=dup, retain=retain)
    [(first_byte, body)] = frame.PacketBuffer(1_000_000).feed(data)
    expected = frame.Publish(
        topic, payload, int(packet_id is not None), packet_id or 0, dup, retain
    )
    assert frame.parse_publish(first_byte, body) == expected


@settings(deadline=None)
@given(_topics, st.binary(max_size=400), _packet_ids | st.just(0), st.booleans())
def test_a_publish_is_written_as_mqtt_has_it(
    topic: str, payload: bytes, packet_id: int, duplicate: bool
) -> None:
    data = frame.publish(topic, payload, packet_id=packet_id, duplicate=duplicate)
    expected = raw.publish(
        topic, payload, packet_id=packet_id or None, dup=duplicate and packet_id != 0
    )
    assert data == expected


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([127, 128, 16_383, 16_384, 200_000]))
def test_a_large_publish_is_written_as_mqtt_has_it(size: int) -> None:
    assert frame.publish("t", bytes(size)) == raw.publish("t", bytes(size))


def test_a_puback_is_written_as_mqtt_has_it() -> None:
    for packet_id in (1, 255, 256, 65535):
        assert frame.puback(packet_id) == raw.puback(packet_id)


_bodies = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda head, parts: head + b"".join(parts),
        st.sampled_from([b"", b"\0", b"\0\0", b"\0\1", b"\xff\xff"]),
        st.lists(
            st.sampled_from([b"\0\1a", b"\0\2a#", b"\0\0", b"\0", b"\1", b"\2", b"\3", b"\0\1\xff"])
        ),
    ),
)


def _body(packet: bytes) -> bytes:
    [(_, body)] = frame.PacketBuffer(1_000_000).feed(packet)
    return body


@settings(deadline=None)
@given(_bodies)
def test_what_is_read_of_filters_is_all_that_was_written(body: bytes) -> None:
    with contextlib.suppress(frame.ProtocolError):
        packet_id, requested = frame.parse_filters(body, with_qos=True)
        assert packet_id
        assert requested
        assert all(qos <= 2 for _, qos in requested)
        assert _body(raw.subscribe(packet_id, *requested)) == body
    with contextlib.suppress(frame.ProtocolError):
        packet_id, ended = frame.parse_filters(body, with_qos=False)
        assert packet_id
        assert ended
        assert _body(raw.unsubscribe(packet_id, *(name for name, _ in ended))) == body


@settings(deadline=None)
@given(_packet_ids, st.lists(st.tuples(_topics, st.integers(0, 2)), min_size=1))
def test_filters_are_read_as_they_were_built(
    packet_id: int, requested: list[tuple[str, int]]
) -> None:
    body = _body(raw.subscribe(packet_id, *requested))
    assert frame.parse_filters(body, with_qos=True) == (packet_id, requested)
    names = [name for name, _ in requested]
    body = _body(raw.unsubscribe(packet_id, *names))
    assert frame.parse_filters(body, with_qos=False) == (packet_id, [(name, 0) for name in names])
    granted = [qos for _, qos in requested]
    assert frame.suback(packet_id, granted) == raw.suback(packet_id, *granted)
    assert frame.unsuback(packet_id) == raw.unsuback(packet_id)


def test_a_text_with_u0000_is_no_filter() -> None:
    with pytest.raises(frame.ProtocolError, match=r"U\+0000"):
        frame.parse_filters(_body(raw.subscribe(1, "a\0b")), with_qos=True)


# --- CONNECT, with amqtt's codec as the judge


def _by_amqtt(body: bytes) -> frame.Connect:
    """Parse a CONNECT with amqtt's codec, and refuse what the codec lets pass.

    The codec accepts truncated packets, bytes after the last field, and text that is not UTF-8. It
    writes none of them as it read them. Only the password need not be text.

    Raises:
        ProtocolError: the packet is malformed.
    """
    header = MQTTFixedHeader(CONNECT, 0, len(body))
    try:
        connect = _run(ConnectPacket.from_stream(BufferReader(body), header))
        flags, payload = connect.variable_header, connect.payload
        if payload.client_id_is_random:  # amqtt makes one up if the client sent none
            payload.client_id = ""
        payload.password = None
        before_password = flags.to_bytes() + payload.to_bytes(None, flags)
    except (AMQTTError, MQTTError, NoDataError, ValueError, struct.error) as error:
        raise frame.ProtocolError from error
    rest = body[len(before_password) :]
    texts = (payload.client_id, payload.username or "", payload.will_topic or "")
    if (
        not body.startswith(before_password)
        or len(rest) != (2 + int.from_bytes(rest[:2], "big") if flags.password_flag else 0)
        or flags.proto_name != "MQTT"
        or flags.reserved_flag
        or flags.will_qos > 2
        or (not flags.will_flag and (flags.will_qos or flags.will_retain_flag))
        or (flags.will_flag and payload.will_topic is None)
        or (flags.username_flag and payload.username is None)
        or (flags.password_flag and not flags.username_flag)
        or any("\0" in each for each in texts)
    ):
        raise frame.ProtocolError
    will = None
    if flags.will_flag:
        topic, data = payload.will_topic, bytes(payload.will_message)
        will = frame.Publish(topic, data, flags.will_qos, 0, False, flags.will_retain_flag)
    password = rest[2:] if flags.password_flag else None
    clean, keep_alive = flags.clean_session_flag, flags.keep_alive
    return frame.Connect(payload.client_id, clean, keep_alive, will, payload.username, password)


def _run(decoding: Coroutine[Any, Any, Any]) -> Any:
    """Run amqtt's coroutine to its end: it never waits, because all bytes have arrived."""
    try:
        decoding.send(None)
    except StopIteration as result:
        return result.value
    raise RuntimeError("amqtt waits for bytes that it has")


_fields = st.sampled_from(
    [text(""), text("d"), text("hub/d/?a=ä"), text(b"\xff"), text("\0"), b"\0", b"\0\2a", b"x"]
)
_connect_bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda start, flags, rest: start + bytes([flags]) + b"".join(rest),
        st.just(text("MQTT") + b"\4")
        | st.sampled_from([text("MQTT") + b"\5", text("MQTX") + b"\4"]),
        st.integers(0, 255) | st.sampled_from([0x00, 0x02, 0x80, 0xC2, 0xC6, 0xEE, 0xF6]),
        st.lists(_fields | st.just(b"\0\x3c"), max_size=7),
    ),
    st.builds(
        lambda flags, keep_alive, rest: (
            text("MQTT") + b"\4" + bytes([flags]) + raw.number(keep_alive) + b"".join(rest)
        ),
        st.sampled_from([0x00, 0x02, 0x80, 0x82, 0xC0, 0xC2, 0xC4, 0xCE, 0xD6, 0xEE, 0x04, 0x24]),
        st.integers(0, 65535),
        st.lists(st.builds(text, st.text(max_size=5) | st.binary(max_size=3)), max_size=5),
    ),
)


@settings(deadline=None, max_examples=300)
@given(_connect_bodies)
def test_a_connect_is_parsed_as_amqtt_parses_it_strictly(body: bytes) -> None:
    try:
        expected = _by_amqtt(body)
    except frame.ProtocolError:
        with pytest.raises(frame.ProtocolError):
            frame.parse_connect(body)
        return
    if body[6] != 4:
        with pytest.raises(frame.UnacceptableProtocolVersion):
            frame.parse_connect(body)
    else:
        assert frame.parse_connect(body) == expected


@settings(deadline=None)
@given(
    _topics,
    st.none() | st.tuples(_topics, st.binary(max_size=20)),
    st.none() | st.tuples(_topics, st.none() | st.binary(max_size=20)),
    st.booleans(),
    st.integers(0, 65535),
)
def test_a_connect_is_parsed_as_it_was_built(
    client_id: str,
    will: tuple[str, bytes] | None,
    user: tuple[str, bytes | None] | None,
    clean: bool,
    keep_alive: int,
) -> None:
    name, password = user or (None, None)
    body = _body(
        raw.connect(client_id, name, password, clean=clean, keep_alive=keep_alive, will=will)
    )
    expected_will = will and frame.Publish(*will, 0, 0, False, False)
    assert frame.parse_connect(body) == frame.Connect(
        client_id, clean, keep_alive, expected_will, name, password
    )


def test_a_connack_and_a_pingresp_are_written_as_mqtt_has_them() -> None:
    for code in frame.ReturnCode:
        for present in (False, True):
            assert frame.connack(code, session_present=present) == raw.connack(
                code, session_present=present
            )
    assert frame.PINGRESP == raw.PINGRESP
