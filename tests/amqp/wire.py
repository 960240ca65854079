"""AMQP by hand over a socket: one thread, and the codec of the emulator."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any

from emulator.amqp import frame
from emulator.amqp.message import Message, Value
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Flow,
    Open,
    Properties,
    Source,
    Target,
    Transfer,
)
from tests.amqp.playbook import write
from tests.support import PATIENCE

PUT_TOKEN = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "x"}


class AmqpWire:
    """One connection, over TLS or plain.

    Args:
        address: host and port.
        context: for TLS; None is plain.
        receive_buffer: the socket's; a small one fills early.
    """

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        self.host = address[0]
        plain = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(PATIENCE)
        plain.connect(address)
        self._socket = context.wrap_socket(plain, server_hostname=address[0]) if context else plain
        self._frames = frame.FrameBuffer()
        self._number = 0

    def __enter__(self) -> AmqpWire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection without a close of AMQP."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def send_what_goes(self, data: bytes, seconds: float = 3) -> None:
        """Send bytes, as far as the hub takes them."""
        deadline = time.monotonic() + seconds
        self._socket.settimeout(0.5)
        with contextlib.suppress(OSError):
            for start in range(0, len(data), 16 * 1024):
                if time.monotonic() > deadline:
                    break
                self._socket.sendall(data[start : start + 16 * 1024])
        self._socket.settimeout(PATIENCE)

    def receive(self) -> bytes:
        """Receive bytes; empty at the end."""
        try:
            return self._socket.recv(64 * 1024)
        except ConnectionError:
            return b""

    def header(self) -> bytes:
        """Receive a protocol header."""
        while (found := self._frames.header()) is None:
            self._more()
        return found

    def take(self) -> Any:
        """Receive the performative of a frame, which may be empty."""
        while (found := self._frames.frame(frame.AMQP, 2**32)) is None:
            self._more()
        return found[1]

    def take_until(self, kind: type) -> Any:
        """Receive until a performative of a kind arrives."""
        while not isinstance(found := self.take(), kind):
            assert not isinstance(found, Close), found
        return found

    def take_close(self) -> Close:
        """Receive until the hub closes the connection."""
        while not isinstance(found := self.take(), Close):
            pass
        return found

    def expect_end(self) -> None:
        """The hub ends the connection."""
        while self.receive():
            pass

    def _more(self) -> None:
        data = self.receive()
        assert data, "the connection has ended"
        self._frames.append(data)

    # --- what clients do

    def begin(self) -> AmqpWire:
        """Open the connection, and begin a session on channel 0."""
        opening = frame.write(0, Open("wire", self.host)) + frame.write(0, BEGIN)
        self.send(frame.AMQP_HEADER + opening)
        assert self.header() == frame.AMQP_HEADER
        self.take_until(Begin)
        return self

    def put_token(self, token: str) -> int:
        """Send a token by new links to `$cbs`; return the status."""
        self.send(
            write(0, Attach("s", 0, SENDER, target=Target("$cbs")))
            + write(0, Attach("r", 1, RECEIVER, source=Source("$cbs")))
            + write(0, Flow(0, 1000, 0, 1000, handle=1, delivery_count=0, link_credit=100))
        )
        self.take_until(Flow)
        self.send(self.token_request(token))
        self.take_until(Transfer)
        return 200

    def token_request(self, token: str) -> bytes:
        """Return the bytes of a request to `$cbs` on handle 0."""
        message = Message(Value(token), Properties(message_id="1"), PUT_TOKEN)
        self._number += 1
        tag = b"%d" % self._number
        return write(0, Transfer(0, self._number - 1, tag, settled=True), message.to_bytes())


BEGIN = Begin(None, 0, 10_000, 10_000)
