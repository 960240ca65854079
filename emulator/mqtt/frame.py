"""MQTT packets as bytes: cut from a stream, parsed and written by hand, and strictly.

To read what the socket has, and to cut it here, keeps messages in order, bounds the size of a
packet before the packet is read, and is fast. Section numbers are those of MQTT 3.1.1.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

from msgspec import Struct

from emulator.hub.core import limits

# First bytes: a packet's type, with the only flags that it may carry (section 2.2.2). A PUBLISH has
# flags of its own.
CONNECT = 0x10
PUBLISH = 0x30
PUBACK = 0x40
SUBSCRIBE = 0x82
UNSUBSCRIBE = 0xA2
PINGREQ = 0xC0
DISCONNECT = 0xE0

PINGRESP = b"\xd0\x00"
PUBACK_HEAD = b"\x40\x02"
"""What comes before the packet identifier of a PUBACK."""

# The longest text, such as a topic (section 1.5.3).
TEXT_BYTES = 0xFFFF

# So many bytes of another protocol are kept, to recognise it.
_SHOWN = 8

# The first bytes of a client's packets. A hub takes no QoS 2, so it takes no packet of that flow;
# DUP is not allowed with QoS 0 (section 3.3.1.1).
PUBLISH_BYTES = {PUBLISH, 0x31, 0x32, 0x33, 0x3A, 0x3B}
_FIRST_BYTES = {CONNECT, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT} | PUBLISH_BYTES

# How a CONNECT begins: protocol name and level. MQTT 3.1 had another name.
_MQTT_3_1_1 = b"\x00\x04MQTT\x04"
_OTHER_VERSIONS = (b"\x00\x04MQTT", b"\x00\x06MQIsdp")
_MQTT_5 = b"\x00\x04MQTT\x05"


class ProtocolError(Exception):
    """A client broke a rule of MQTT or of the hub: its connection closes without an answer."""


class UnknownPacket(ProtocolError):  # noqa: N818 - what it is
    """No packet begins with this byte.

    Args:
        data: the first bytes that have arrived, from this one on.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(f"Unknown first byte {data[0]:#04x} of a packet")
        self.data = data


class UnacceptableProtocolVersion(ProtocolError):  # noqa: N818 - the name in section 3.2.2.3
    """A CONNECT has another protocol level: it is answered, and not parsed (section 3.1.2.2).

    Args:
        answer: the CONNACK, in a form that the client can read.
    """

    def __init__(self, answer: bytes) -> None:
        super().__init__("CONNECT with another protocol level")
        self.answer = answer


class ReturnCode(enum.IntEnum):
    """The answer to a CONNECT (section 3.2.2.3)."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    NOT_AUTHORIZED = 5


class Publish(Struct, frozen=True, gc=False):
    """A PUBLISH packet, or a will; `packet_id` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    duplicate: bool
    retain: bool


class Connect(Struct, frozen=True):
    """A CONNECT packet; what its flags do not announce is None.

    Args:
        keep_alive: in seconds; 0 turns it off (section 3.1.2.10).
        password: binary data: it need not be text (section 3.1.3.5).
    """

    client_id: str
    clean_session: bool
    keep_alive: int
    will: Publish | None
    user_name: str | None
    password: bytes | None

    @property
    def allowed_silence(self) -> float:
        """How many seconds the device may be silent; 0 asks for the longest time (EdgeHub)."""
        if self.keep_alive == 0:
            return limits.MQTT_KEEP_ALIVE_MAX
        return min(1.5 * self.keep_alive, limits.MQTT_KEEP_ALIVE_MAX)


class PacketBuffer:
    """Cuts the bytes of a stream into packets, and keeps the first part of an incomplete packet.

    Args:
        limit: the largest remaining length, in bytes, that a packet may announce now; it can be
            changed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rest = b""

    def body_of_one(self, data: bytes) -> int:
        """Return where the body of a packet begins, if the bytes are one packet of up to 16 KB.

        Most reads are, and do not need the steps of `feed`. The caller checks the first byte.

        Returns:
            0 if they are not, and if the first part of a packet is kept.
        """
        end = len(data)
        if self._rest or end < 3:
            return 0
        low, high = data[1], data[2]
        if low < 0x80:
            return 2 if end == low + 2 else 0
        return 3 if high < 0x80 and end == (low & 0x7F | high << 7) + 3 else 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Cut off each complete packet, as its first byte and its body.

        Raises:
            ProtocolError: a first byte is unknown, or a length is malformed or above the limit;
                raised before the rest of the packet has arrived.
        """
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        while position < end:
            first_byte = data[position]
            if first_byte not in _FIRST_BYTES:
                raise UnknownPacket(data[position : position + _SHOWN])
            # The remaining length (section 2.2.3), as far as it has arrived
            length, shift, start, digit = 0, 0, position + 1, 0x80
            while digit >= 0x80 and shift < 28 and start < end:
                digit = data[start]
                length |= (digit & 0x7F) << shift
                start += 1
                shift += 7
            if digit >= 0x80 and shift == 28:
                raise ProtocolError("Remaining length of more than four bytes")
            if length > self.limit:
                raise ProtocolError(f"Packet of {length} bytes: {self.limit} are allowed")
            body_end = start + length
            if digit >= 0x80 or body_end > end:
                break
            yield first_byte, data[start:body_end]
            position = body_end
        self._rest = data[position:]


def parse_connect(body: bytes) -> Connect:
    """Parse a CONNECT (section 3.1).

    Raises:
        UnacceptableProtocolVersion
        ProtocolError: the packet is malformed, or its flags contradict each other.
    """
    if not body.startswith(_MQTT_3_1_1):
        if body.startswith(_OTHER_VERSIONS):
            # Reason 0x84 and no properties (MQTT 5, section 3.2). What a real hub sends is unknown.
            is_5 = body.startswith(_MQTT_5)
            refusal = connack(ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION)
            raise UnacceptableProtocolVersion(b"\x20\x03\x00\x84\x00" if is_5 else refusal)
        raise ProtocolError("CONNECT with an unknown protocol name")
    position = len(_MQTT_3_1_1) + 3
    if len(body) < position:
        raise ProtocolError("CONNECT is truncated")
    flags, keep_alive = body[position - 3], int.from_bytes(body[position - 2 : position], "big")
    has_user_name, has_password, has_will = flags & 0x80, flags & 0x40, flags & 0x04
    will_qos, will_retain = flags >> 3 & 3, bool(flags & 0x20)
    if (
        flags & 0x01
        or will_qos > 2
        or (not has_will and (will_qos or will_retain))
        or (has_password and not has_user_name)
    ):
        raise ProtocolError(f"CONNECT with invalid flags {flags:#04x}")
    client_id, position = _parse_text(body, position)
    will = user_name = password = None
    if has_will:
        topic, position = _parse_text(body, position)
        payload, position = _parse_binary(body, position)
        will = Publish(topic, payload, will_qos, 0, False, will_retain)
    if has_user_name:
        user_name, position = _parse_text(body, position)
    if has_password:
        password, position = _parse_binary(body, position)
    if position != len(body):
        raise ProtocolError("CONNECT with bytes after its last field")
    return Connect(client_id, bool(flags & 0x02), keep_alive, will, user_name, password)


def connack(return_code: ReturnCode, *, session_present: bool = False) -> bytes:
    """Write a CONNACK (section 3.2)."""
    return bytes((0x20, 2, session_present, return_code))


def parse_publish(first_byte: int, body: bytes) -> Publish:
    """Parse a PUBLISH (section 3.3).

    Args:
        first_byte: the first byte of the packet.
        body: what follows the remaining length.

    Raises:
        ProtocolError: the packet is malformed.
    """
    qos = (first_byte >> 1) & 3
    if len(body) < 2:
        raise ProtocolError("PUBLISH without a topic")
    topic_end = 2 + (body[0] << 8 | body[1])
    payload_start = topic_end + 2 * qos
    if payload_start > len(body):
        raise ProtocolError("PUBLISH is truncated")
    try:
        topic = body[2:topic_end].decode()
    except UnicodeDecodeError:
        raise ProtocolError("PUBLISH to a topic that is not UTF-8") from None
    if "#" in topic or "+" in topic or "\0" in topic:
        raise ProtocolError(f"PUBLISH to an invalid topic: {topic!r}")
    packet_id = body[topic_end] << 8 | body[topic_end + 1] if qos else 0
    if qos and not packet_id:
        raise ProtocolError("PUBLISH with packet identifier 0")
    payload = body[payload_start:]
    return Publish(topic, payload, qos, packet_id, first_byte & 8 != 0, first_byte & 1 != 0)


def publish(topic: str, payload: bytes, *, packet_id: int = 0, duplicate: bool = False) -> bytes:
    """Write a PUBLISH: QoS 1 with a packet identifier, QoS 0 without.

    Raises:
        ProtocolError: the topic is too long; the request id of a device can make it so.
    """
    name = topic.encode()
    if len(name) > TEXT_BYTES:
        raise ProtocolError(f"Answer with a topic of {len(name)} bytes: {TEXT_BYTES} are allowed")
    body = len(name).to_bytes(2, "big") + name
    first_byte = PUBLISH
    if packet_id:
        first_byte |= 0x02 | duplicate << 3
        body += packet_id.to_bytes(2, "big")
    return bytes((first_byte,)) + _encode_length(len(body) + len(payload)) + body + payload


def parse_puback(body: bytes) -> int:
    """Parse a PUBACK (section 3.4).

    Returns:
        its packet identifier.

    Raises:
        ProtocolError: the packet is malformed.
    """
    if len(body) != 2:
        raise ProtocolError(f"PUBACK of {len(body)} bytes")
    return int.from_bytes(body, "big")


def puback(packet_id: int) -> bytes:
    """Write a PUBACK (section 3.4)."""
    return PUBACK_HEAD + packet_id.to_bytes(2, "big")


def parse_filters(body: bytes, *, with_qos: bool) -> tuple[int, list[tuple[str, int]]]:
    """Parse a SUBSCRIBE (section 3.8), or without QoS an UNSUBSCRIBE (section 3.10).

    Returns:
        its packet identifier, and each filter with the QoS that it asks for.

    Raises:
        ProtocolError: the packet is malformed, or has too many filters.
    """
    packet_id, position = int.from_bytes(body[:2], "big"), 2
    if not packet_id:
        raise ProtocolError("Filters without a packet identifier")
    filters, qos = [], 0
    while position < len(body):
        name, position = _parse_text(body, position)
        if with_qos:
            if position == len(body) or body[position] > 2:
                raise ProtocolError("SUBSCRIBE with a filter without a valid QoS")
            qos = body[position]
            position += 1
        filters.append((name, qos))
        if len(filters) > limits.MQTT_FILTERS:
            raise ProtocolError(f"More filters than {limits.MQTT_FILTERS}, which are allowed")
    if not filters:
        raise ProtocolError("SUBSCRIBE or UNSUBSCRIBE without a filter")
    return packet_id, filters


def suback(packet_id: int, granted: Iterable[int]) -> bytes:
    """Write a SUBACK (section 3.9), with the QoS that is granted to each filter."""
    body = packet_id.to_bytes(2, "big") + bytes(granted)
    return b"\x90" + _encode_length(len(body)) + body


def unsuback(packet_id: int) -> bytes:
    """Write an UNSUBACK (section 3.11)."""
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")


def _parse_text(body: bytes, position: int) -> tuple[str, int]:
    """Parse a UTF-8 string (section 1.5.3).

    Returns:
        the text, and the position behind it.
    """
    data, end = _parse_binary(body, position)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("Text that is not UTF-8") from None
    if "\0" in text:
        raise ProtocolError("Text with U+0000")
    return text, end


def _parse_binary(body: bytes, position: int) -> tuple[bytes, int]:
    """Parse binary data behind its length in two bytes; returns as `_parse_text` does."""
    start = position + 2
    end = start + int.from_bytes(body[position:start], "big")
    if end > len(body):
        raise ProtocolError("Packet is truncated")
    return body[start:end], end


def _encode_length(length: int) -> bytes:
    digits = bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits)
