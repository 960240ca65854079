"""MQTT packets cut out of whole buffers, and PUBLISH, the one that is frequent, by hand.

Every other packet goes through amqtt's codec. Reading what the socket has and cutting it here is
what keeps messages in order, bounds their size before they are read, and is fast.
Section numbers are those of MQTT 3.1.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

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


def _encode_length(length: int) -> bytes:
    digits = bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits)
