"""MQTT packets cut out of whole buffers, and by hand those that each device sends and is sent.

A CONNECT and the rest of the answers go through amqtt's codec. Reading what the socket has and
cutting it here is what keeps messages in order, bounds their size before they are read, and is
fast.
Section numbers are those of MQTT 3.1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from emulator.hub.core import limits

# What a packet from a client can begin with: its type and flags (MQTT 3.1.1, section 2.2). A hub
# takes no QoS 2, so none of that flow's packets; DUP makes no sense with QoS 0.
_FIRST_BYTES = frozenset(
    (0x10, 0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B, 0x40, 0x82, 0xA2, 0xC0, 0xE0)
)  # fmt: skip


class ProtocolError(Exception):
    """A client broke a rule of MQTT or of the hub: its connection closes, no packet says why."""


class Publish(Struct, frozen=True, gc=False):
    """A PUBLISH packet; `packet_id` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    duplicate: bool
    retain: bool


class PacketBuffer:
    """Cuts what a socket gives into packets, and keeps the piece of one that is not yet whole.

    Args:
        limit: the largest remaining length, in bytes, that a packet may announce.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Give each whole packet as its first byte and its body.

        Raises:
            ProtocolError: no packet of a client begins so, or its length is malformed or above the
                limit; told before the rest of it is there.
        """
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            buffer = self._rest
        position, end = 0, len(buffer)
        while position < end:
            if buffer[position] not in _FIRST_BYTES:
                raise ProtocolError(f"a packet that begins with {buffer[position]:#04x}")
            length, start = _remaining_length(buffer, position + 1, end)
            if length > self._limit:
                raise ProtocolError(f"a packet of {length} bytes, {self._limit} are allowed")
            if start == 0 or end - start < length:
                break
            body_end = start + length
            yield buffer[position], bytes(buffer[start:body_end])
            position = body_end
        self._rest = bytearray(buffer[position:])


def _remaining_length(buffer: bytes | bytearray, position: int, end: int) -> tuple[int, int]:
    """Decode section 2.2.3's length; gives it and where the body starts, 0 if not yet known."""
    length = shift = 0
    while position < end:
        digit = buffer[position]
        length |= (digit & 0x7F) << shift
        position += 1
        if digit < 0x80:
            return length, position
        shift += 7
        if shift > 21:
            raise ProtocolError("a remaining length of more than four bytes")
    return length, 0


def parse_publish(first_byte: int, body: bytes) -> Publish:
    """Read a PUBLISH (section 3.3).

    Raises:
        ProtocolError: it is malformed.
    """
    qos = (first_byte >> 1) & 3
    if len(body) < 2:
        raise ProtocolError("a PUBLISH without a topic")
    topic_end = 2 + (body[0] << 8 | body[1])
    payload_start = topic_end + 2 * qos
    if payload_start > len(body):
        raise ProtocolError("a PUBLISH that is too short")
    try:
        topic = body[2:topic_end].decode()
    except UnicodeDecodeError:
        raise ProtocolError("a topic that is not UTF-8") from None
    if "#" in topic or "+" in topic or "\0" in topic:
        raise ProtocolError(f"PUBLISH to {topic!r}")
    packet_id = body[topic_end] << 8 | body[topic_end + 1] if qos else 0
    if qos and not packet_id:
        raise ProtocolError("a PUBLISH with packet id 0")
    return Publish(
        topic, body[payload_start:], qos, packet_id, bool(first_byte & 8), bool(first_byte & 1)
    )


def publish(topic: str, payload: bytes, *, packet_id: int = 0, duplicate: bool = False) -> bytes:
    """Write a PUBLISH: QoS 1 with a packet id, QoS 0 without.

    Raises:
        ProtocolError: the topic is too long; a device's own request id can make it so.
    """
    name = topic.encode()
    if len(name) > 0xFFFF:
        raise ProtocolError("an answer whose topic is too long")
    body = len(name).to_bytes(2, "big") + name
    first_byte = 0x30
    if packet_id:
        first_byte |= 0x02 | duplicate << 3
        body += packet_id.to_bytes(2, "big")
    return bytes((first_byte,)) + _encode_length(len(body) + len(payload)) + body + payload


def puback(packet_id: int) -> bytes:
    """Write a PUBACK (section 3.4)."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def parse_subscribe(body: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Read a SUBSCRIBE (section 3.8): its packet id, and each filter with the QoS asked for.

    Raises:
        ProtocolError: it is malformed, or longer than a hub has filters for.
    """
    packet_id, position = _parse_packet_id(body), 2
    filters = []
    while position < len(body):
        name, position = _parse_text(body, position)
        if position == len(body) or body[position] > 2:
            raise ProtocolError("a filter without a QoS")
        filters.append((name, body[position]))
        position += 1
    if not filters:
        raise ProtocolError("a SUBSCRIBE without a filter")
    return packet_id, filters


def parse_unsubscribe(body: bytes) -> tuple[int, list[str]]:
    """Read an UNSUBSCRIBE (section 3.10): its packet id, and filters.

    Raises:
        ProtocolError: as `parse_subscribe`.
    """
    packet_id, position = _parse_packet_id(body), 2
    filters = []
    while position < len(body):
        name, position = _parse_text(body, position)
        filters.append(name)
    if not filters:
        raise ProtocolError("an UNSUBSCRIBE without a filter")
    return packet_id, filters


def suback(packet_id: int, granted: Iterable[int]) -> bytes:
    """Write a SUBACK (section 3.9), with the QoS that each filter is granted."""
    body = packet_id.to_bytes(2, "big") + bytes(granted)
    return b"\x90" + _encode_length(len(body)) + body


def unsuback(packet_id: int) -> bytes:
    """Write an UNSUBACK (section 3.11)."""
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")


def _parse_packet_id(body: bytes) -> int:
    if len(body) > limits.MQTT_FILTERS_BYTES:
        raise ProtocolError(f"filters of {len(body)} bytes")
    packet_id = int.from_bytes(body[:2], "big")
    if not packet_id:
        raise ProtocolError("filters without a packet id")
    return packet_id


def _parse_text(body: bytes, position: int) -> tuple[str, int]:
    """Decode section 1.5.3's text; gives it and where it ends."""
    start = position + 2
    end = start + int.from_bytes(body[position:start], "big")
    if end > len(body):
        raise ProtocolError("a filter that is too short")
    try:
        text = body[start:end].decode()
    except UnicodeDecodeError:
        raise ProtocolError("a filter that is not UTF-8") from None
    if "\0" in text:
        raise ProtocolError(f"a filter with U+0000: {text!r}")
    return text, end


def _encode_length(length: int) -> bytes:
    digits = bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits)
