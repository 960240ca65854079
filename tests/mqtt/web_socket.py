"""MQTT over a WebSocket by hand (RFC 6455), as raw.py has it over TLS: one thread, no library."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from collections.abc import Sequence
from typing import NamedTuple

from tests.mqtt.raw import PATIENCE, Wire

PATH = "/$iothub/websocket"

# RFC 6455, section 5.2
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# RFC 6455, section 7.4.1: reasons that a peer gives for closing.
NORMAL, TOO_BIG = 1000, 1009

_ACCEPT_SALT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True) -> bytes:
    """A frame as a client sends it: masked, here with zeros, which change nothing."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 0x10000:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([final << 7 | opcode]) + length + bytes(4) + payload


class UpgradeRefusedError(Exception):
    """The hub answered an upgrade with something else; its text is the status line."""


class WebSocketWire(Wire):
    """One connection. `send` makes one frame; `receive` takes packets as frames bring them.

    Raises:
        UpgradeRefusedError
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        path: str = PATH,
        subprotocol: str | None = "mqtt",
        receive_buffer: int | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        super().__init__((host, port), context, receive_buffer=receive_buffer)
        self._tls, self._socket = self._socket, _Frames(self)
        self.unread = bytearray()
        self.close_code: int | None = None
        try:
            self._upgrade(f"{host}:{port}", path, subprotocol, fields)
        except BaseException:
            self._tls.close()
            raise

    def _upgrade(
        self, host: str, path: str, subprotocol: str | None, fields: Sequence[str]
    ) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
            *fields,
        ]
        self.send_bytes("\r\n".join([*lines, "", ""]).encode(errors="surrogateescape"))
        while b"\r\n\r\n" not in self.unread:
            assert self._read_more(), "the hub closed the connection"
        head, _, rest = bytes(self.unread).partition(b"\r\n\r\n")
        self.unread[:] = rest
        status, *answered = head.decode().split("\r\n")
        if " 101 " not in status:
            raise UpgradeRefusedError(status)
        headers = {
            name.lower(): value for name, value in (each.split(": ", 1) for each in answered)
        }
        digest = hashlib.sha1((key + _ACCEPT_SALT).encode(), usedforsecurity=False).digest()
        assert headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
        assert headers["sec-websocket-protocol"] == subprotocol
        assert "sec-websocket-extensions" not in headers

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are: `frame` makes some that are right."""
        self._tls.sendall(data)

    def receive_frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while (found := _first_frame(self.unread)) is None:
            if not self._read_more():
                return None
        received, size = found
        del self.unread[:size]
        return received

    def _read_more(self) -> bool:
        try:
            data = self._tls.recv(65536)
        except TimeoutError:
            raise AssertionError(f"the hub was silent for {PATIENCE:.0f} s") from None
        except (ConnectionError, ssl.SSLError):
            data = b""  # cut off, where others are closed
        self.unread += data
        return bool(data)

    def close(self) -> None:
        """Go without a goodbye of any kind."""
        self._tls.close()


class _Frames:
    """What `Wire` uses of a socket, in binary frames; a Close is the end."""

    def __init__(self, wire: WebSocketWire) -> None:
        self._wire = wire

    def sendall(self, data: bytes) -> None:
        self._wire.send_bytes(frame(data))

    def recv(self, _: int) -> bytes:
        received = self._wire.receive_frame()
        if received is None:
            return b""
        if received.opcode == CLOSE:
            self._wire.close_code = int.from_bytes(received.payload[:2], "big")
            return b""
        assert received.opcode == BINARY, received
        assert received.payload, "an empty frame"
        return received.payload


def _first_frame(data: bytearray) -> tuple[Frame, int] | None:
    """The first frame and its size; None if it isn't there as a whole."""
    if len(data) < 2:
        return None
    assert data[0] & 0xF0 == 0x80, f"a frame that is not final, or has extensions: {data[0]:#x}"
    assert not data[1] & 0x80, "a server's frame is not masked"
    length, start = data[1], 2
    if length > 125:
        start = 4 if length == 126 else 10
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        return None
    return Frame(data[0] & 0x0F, bytes(data[start : start + length])), start + length
