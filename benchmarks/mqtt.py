"""MQTT packets for the clients: none of the emulator's code, so that a client costs little."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.https import API_VERSION, sas_token
from benchmarks.servers import HOST

# What a client of an SDK subscribes to.
FILTERS = (
    b"$iothub/methods/POST/#",
    b"$iothub/twin/res/#",
    b"$iothub/twin/PATCH/properties/desired/#",
)

CONNACK = b"\x20\x02\x00\x00"  # accepted, no session present
PUBACK_BYTES = 4

# Longer than a run, and within what the hub allows.
_KEEP_ALIVE = 1177


def packet(first_byte: int, body: bytes) -> bytes:
    """Encode a packet (MQTT 3.1.1, section 2.2)."""
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first_byte]) + bytes(digits) + body


def connect(device_id: str) -> bytes:
    """Encode the CONNECT of a device, with its token and clean session 0, as Azure's SDKs do."""
    user_name = f"{HOST}/{device_id}/?api-version={API_VERSION}"
    token = sas_token(f"{HOST}/devices/{device_id}")
    header = _text(b"MQTT") + b"\x04\xc0" + _KEEP_ALIVE.to_bytes(2, "big")
    texts = (device_id, user_name, token)
    return packet(0x10, header + b"".join(_text(each.encode()) for each in texts))


def subscribe(filters: Sequence[bytes]) -> bytes:
    """Encode a SUBSCRIBE with packet id 1 and QoS 0."""
    return packet(0x82, b"\x00\x01" + b"".join(_text(each) + b"\x00" for each in filters))


def suback(filters: Sequence[bytes]) -> bytes:
    """Encode the answer to such a SUBSCRIBE."""
    return packet(0x90, b"\x00\x01" + bytes(len(filters)))


def publish(topic: bytes, payload: bytes, packet_id: int = 0) -> bytes:
    """Encode a PUBLISH: QoS 1 with a packet id, QoS 0 without one."""
    identifier = packet_id.to_bytes(2, "big") if packet_id else b""
    return packet(0x32 if packet_id else 0x30, _text(topic) + identifier + payload)


def whole(data: bytes) -> int:
    """Return the size of the first packet; 0 if a part of it is missing."""
    length = 0
    for position, digit in enumerate(data[1:5]):
        length |= (digit & 0x7F) << 7 * position
        if digit < 0x80:
            size = 2 + position + length
            return size if size <= len(data) else 0
    return 0


def method_answer(request: bytes, payload: bytes) -> bytes:
    """Encode the answer of a device to a direct method that it received with QoS 0."""
    start = 2
    while request[start - 1] & 0x80:
        start += 1
    topic = request[start + 2 : start + 2 + int.from_bytes(request[start : start + 2], "big")]
    return publish(b"$iothub/methods/res/200/?$rid=" + topic[topic.rindex(b"=") + 1 :], payload)


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value
