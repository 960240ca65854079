"""MQTT packets, encoded beforehand, and one device that waits for each answer.

None of the emulator's own code is used: a client should cost as little as it can.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from benchmarks.bench import API_VERSION, End, Hub

METHODS = "$iothub/methods/POST/#"
# What an SDK's client subscribes to before it is of use.
FILTERS = (METHODS, "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#")

CONNACK = b"\x20\x02"
SUBACK = 0x90
PUBACK_BYTES = 4

# Longer than a run is, and still within what the hub allows.
_KEEP_ALIVE = 1177
_PATIENCE = 20.0


def packet(first_byte: int, body: bytes) -> bytes:
    """Encode a packet (MQTT 3.1.1, section 2.2)."""
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first_byte]) + bytes(digits) + body


def publish(topic: str | bytes, payload: bytes, packet_id: int = 0) -> bytes:
    """Encode a PUBLISH: QoS 1 with a packet id, else QoS 0."""
    name = topic.encode() if isinstance(topic, str) else topic
    identifier = packet_id.to_bytes(2, "big") if packet_id else b""
    return packet(0x32 if packet_id else 0x30, _text(name) + identifier + payload)


def subscribe(packet_id: int, filters: Sequence[str]) -> bytes:
    """Encode a SUBSCRIBE with QoS 0."""
    topics = b"".join(_text(name.encode()) + b"\x00" for name in filters)
    return packet(0x82, packet_id.to_bytes(2, "big") + topics)


def suback(packet_id: int, filters: int) -> bytes:
    """Encode a SUBACK that grants QoS 0 to so many filters."""
    return packet(SUBACK, packet_id.to_bytes(2, "big") + bytes(filters))


def greeting(client_id: str, hub: Hub | None) -> bytes:
    """Encode the CONNECT of a device, with its token for a hub and with nothing for a broker.

    The session is kept, as Azure's SDKs ask for it.
    """
    flags, credentials = 0, b""
    if hub is not None:
        user_name = f"{hub.mqtt.host}/{client_id}/?api-version={API_VERSION}"
        credentials = _text(user_name.encode()) + _text(hub.device_token(client_id).encode())
        flags = 0xC0
    header = _text(b"MQTT") + bytes([4, flags]) + _KEEP_ALIVE.to_bytes(2, "big")
    return packet(0x10, header + _text(client_id.encode()) + credentials)


def topic_and_payload(data: bytes) -> tuple[bytes, bytes]:
    """Read a PUBLISH with QoS 0."""
    start = 2
    while data[start - 1] & 0x80:
        start += 1
    end = start + 2 + int.from_bytes(data[start : start + 2], "big")
    return data[start + 2 : end], data[end:]


def method_answer(data: bytes, payload: bytes) -> bytes:
    """Encode a device's answer to the direct method that it received."""
    topic, _ = topic_and_payload(data)
    request_id = topic[topic.rindex(b"=") + 1 :]
    return publish(b"$iothub/methods/res/200/?$rid=" + request_id, payload)


def whole(data: bytes | bytearray) -> int:
    """Tell the size of the first packet; 0 if it isn't there as a whole."""
    length = 0
    for position, digit in enumerate(data[1:5]):
        length |= (digit & 0x7F) << 7 * position
        if digit < 0x80:
            size = 2 + position + length
            return size if size <= len(data) else 0
    return 0


class Client:
    """A device, or a broker's client, that blocks until its answer is there.

    Raises:
        ConnectionError: it was refused.
    """

    def __init__(
        self, end: End, trust: ssl.SSLContext, connect: bytes, filters: Sequence[str]
    ) -> None:
        self._socket = dial(end, trust)
        self._received = b""
        self.send(connect)
        if self.receive()[:2] != CONNACK:
            raise ConnectionError("refused")
        self.send(subscribe(1, filters))
        if self.receive()[0] != SUBACK:
            raise ConnectionError("no subscription")

    def send(self, data: bytes) -> None:
        """Send a packet."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Wait for the next packet."""
        while not (size := whole(self._received)):
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._received += data
        data, self._received = self._received[:size], self._received[size:]
        return data

    def close(self) -> None:
        """Go."""
        self._socket.close()


def dial(end: End, trust: ssl.SSLContext) -> ssl.SSLSocket:
    """Open a TLS connection that blocks, for seconds at most."""
    plain = socket.create_connection(end.address, timeout=_PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return trust.wrap_socket(plain, server_hostname=end.host)


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value
