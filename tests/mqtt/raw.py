"""MQTT 3.1.1 by hand, for tests that read like a transcript: what goes out, what comes back.

Packets are built here byte by byte, on purpose without the emulator's code and without a client
library: a test can send what no library would, and a shared mistake can't hide.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import requests

# How long a packet or the end of a connection may take. Nothing here waits that long but a failure.
# The hub's own time-outs are longer (limits.py), so they can't stand in for what is expected.
PATIENCE = 9.0

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"

_ANYTHING: Any = object()

# --- packets


def packet(first_byte: int, body: bytes) -> bytes:
    """Any packet: the length is right, the rest is the caller's."""
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first_byte]) + bytes(digits) + body


def text(value: str | bytes) -> bytes:
    """A string or binary data with its length before it."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def number(value: int) -> bytes:
    return value.to_bytes(2, "big")


def connect(
    client_id: str,
    user_name: str | None = None,
    password: str | bytes | None = None,
    *,
    clean: bool = True,
    keep_alive: int = 60,
    will: tuple[str, bytes] | None = None,
    protocol: str = "MQTT",
    level: int = 4,
    flags: int | None = None,
) -> bytes:
    """A CONNECT; `flags` are those that the rest asks for, unless they are given."""
    asked = 0x02 if clean else 0
    payload = text(client_id)
    if will is not None:
        asked |= 0x04
        payload += text(will[0]) + text(will[1])
    if user_name is not None:
        asked |= 0x80
        payload += text(user_name)
    if password is not None:
        asked |= 0x40
        payload += text(password)
    header = text(protocol) + bytes([level, asked if flags is None else flags]) + number(keep_alive)
    return packet(0x10, header + payload)


def connack(code: int, *, session_present: bool = False) -> bytes:
    return packet(0x20, bytes([session_present, code]))


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    *,
    packet_id: int | None = None,
    qos: int | None = None,
    dup: bool = False,
    retain: bool = False,
) -> bytes:
    """A PUBLISH: QoS 1 with a packet id and 0 without, unless `qos` says otherwise."""
    if qos is None:
        qos = 0 if packet_id is None else 1
    identifier = b"" if packet_id is None else number(packet_id)
    return packet(0x30 | dup << 3 | qos << 1 | retain, text(topic) + identifier + payload)


def puback(packet_id: int) -> bytes:
    return packet(0x40, number(packet_id))


def subscribe(packet_id: int, *filters: str | tuple[str, int]) -> bytes:
    """A SUBSCRIBE; a filter without a QoS asks for 0."""
    wanted = [(each, 0) if isinstance(each, str) else each for each in filters]
    topics = b"".join(text(name) + bytes([qos]) for name, qos in wanted)
    return packet(0x82, number(packet_id) + topics)


def suback(packet_id: int, *granted: int) -> bytes:
    return packet(0x90, number(packet_id) + bytes(granted))


def unsubscribe(packet_id: int, *filters: str) -> bytes:
    return packet(0xA2, number(packet_id) + b"".join(map(text, filters)))


def unsuback(packet_id: int) -> bytes:
    return packet(0xB0, number(packet_id))


def describe(data: bytes) -> str:
    """Write a packet of the hub as a person reads it: as a line of a transcript (playbook.py)."""
    first_byte, body = split(data)
    number_ = int.from_bytes(body[:2], "big")
    match first_byte:
        case 0x30 | 0x32 | 0x3A:
            flags = " +dup" if first_byte & 8 else ""
            identifier = f" {packet_id(data)}" if first_byte & 2 else ""
            topic, payload = published(data)
            return f"PUBLISH{flags}{identifier} {topic} {payload.decode(errors='replace')}".strip()
        case 0x20:
            return f"CONNACK {body[1]}{' session' if body[0] else ''}"
        case 0x40:
            return f"PUBACK {number_}"
        case 0x90:
            return f"SUBACK {number_} {' '.join(map(str, body[2:]))}"
        case 0xB0:
            return f"UNSUBACK {number_}"
        case 0xD0:
            return "PINGRESP"
    return f"a packet {data.hex(' ')}"


def split(data: bytes) -> tuple[int, bytes]:
    """The first byte and the body of a packet."""
    start = 2
    while data[start - 1] & 0x80:
        start += 1
    return data[0], data[start:]


def packets(data: bytes) -> Iterator[bytes]:
    """The packets in some bytes."""
    while data:
        length, size = 0, 1
        while True:
            length |= (data[size] & 0x7F) << 7 * (size - 1)
            size += 1
            if not data[size - 1] & 0x80:
                break
        yield data[: size + length]
        data = data[size + length :]


def published(data: bytes) -> tuple[str, bytes]:
    """The topic and the payload of a PUBLISH."""
    first_byte, body = split(data)
    start = 2 + int.from_bytes(body[:2], "big")
    return body[2:start].decode(), body[start + (2 if first_byte & 0x06 else 0) :]


def packet_id(data: bytes) -> int:
    """The packet identifier of a PUBLISH with QoS 1."""
    _, body = split(data)
    start = 2 + int.from_bytes(body[:2], "big")
    return int.from_bytes(body[start : start + 2], "big")


# --- the wire


class Wire:
    """One connection. What is expected must be the very next thing that the hub sends."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        """Connect; without a context it is plain TCP. `receive_buffer` makes the system's small."""
        plain = socket.socket()
        plain.settimeout(PATIENCE)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            plain.connect(address)
            if context is None:
                self._socket = plain
            else:
                self._socket = context.wrap_socket(plain, server_hostname=address[0])
        except OSError:
            plain.close()
            raise
        self._received = bytearray()

    def send(self, *packets: bytes) -> None:
        """Send packets as one piece."""
        self._socket.sendall(b"".join(packets))

    def begin(self, greeting: bytes, *filters: str) -> None:
        """Send a CONNECT, which is accepted, and subscribe to filters."""
        self.send(greeting)
        self.expect(connack(0))
        if filters:
            self.send(subscribe(1, *filters))
            self.expect(suback(1, *[0] * len(filters)))

    def send_what_goes(self, data: bytes) -> None:
        """Send as much as the hub takes: it may close the connection, or stop reading, midway."""
        with contextlib.suppress(OSError):  # the test looks at what the hub made of it
            self._socket.sendall(data)

    def receive(self) -> bytes:
        """The next packet, whole."""
        data = self._next_packet()
        assert data is not None, "the hub closed the connection"
        return data

    def expect(self, *packets: bytes) -> None:
        """The next packets are these, byte by byte."""
        for expected in packets:
            data = self.receive()
            assert data == expected, f"{describe(data)}, not {describe(expected)}"

    def receive_publish(self) -> tuple[str, bytes]:
        """The next packet, a PUBLISH with QoS 0, as its topic and payload."""
        data = self.receive()
        assert data[0] == 0x30, describe(data)
        return published(data)

    def expect_publish(self, topic: str, payload: Any = _ANYTHING) -> bytes:
        """The next packet is a PUBLISH with QoS 0; `payload` is bytes, or what its JSON holds."""
        actual_topic, actual_payload = self.receive_publish()
        assert actual_topic == topic, f"{actual_topic} {actual_payload[:200]!r}, not {topic}"
        if isinstance(payload, bytes):
            assert actual_payload == payload, f"{actual_payload[:200]!r}, not {payload!r}"
        elif payload is not _ANYTHING:
            assert json.loads(actual_payload) == payload, f"{actual_payload[:200]!r}"
        return actual_payload

    def expect_method(self, name: str, payload: Any = _ANYTHING) -> str:
        """The next packet is a direct method, its name as the topic has it; returns the `$rid`."""
        topic, actual_payload = self.receive_publish()
        match = re.fullmatch(r"\$iothub/methods/POST/([^/]*)/\?\$rid=(.+)", topic)
        assert match, topic
        assert match[1] == name, topic
        if payload is not _ANYTHING:
            assert json.loads(actual_payload) == payload, f"{actual_payload[:200]!r}"
        return match[2]

    def expect_nothing(self) -> None:
        """The hub has sent nothing, and is there: the next packet is the answer to a ping."""
        self.send(PINGREQ)
        self.expect(PINGRESP)

    def expect_closed(self) -> None:
        """The hub sends nothing more, and ends the connection."""
        data = self._next_packet()
        assert data is None, f"{describe(data)}, not the end of the connection"

    def close(self) -> None:
        """Go without a DISCONNECT."""
        self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_packet(self) -> bytes | None:
        """The next packet; None at the end of the connection."""
        while (size := _whole(self._received)) is None:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise AssertionError(
                    f"the hub was silent for {PATIENCE:.0f} s, and the connection is open"
                ) from None
            except (ConnectionError, ssl.SSLError):
                data = b""  # cut off, where others are closed
            if not data:
                assert not self._received, f"the hub left within a packet: {self._received!r}"
                return None
            self._received += data
        data = bytes(self._received[:size])
        del self._received[:size]
        return data


def _whole(data: bytearray) -> int | None:
    """The size of the first packet; None if it isn't there as a whole."""
    length = 0
    for position, digit in enumerate(data[1:5]):
        length |= (digit & 0x7F) << 7 * position
        if digit < 0x80:
            size = 2 + position + length
            return size if size <= len(data) else None
    return None


# --- what the fixtures in conftest.py give


Dial = Callable[..., Wire]
"""Opens a connection; what follows is the test's business."""
Greet = Callable[..., bytes]
"""Builds the CONNECT of a device."""
Online = Callable[..., Wire]
"""Connects a device, and subscribes it to filters."""
Invoke = Callable[..., "Future[requests.Response]"]
