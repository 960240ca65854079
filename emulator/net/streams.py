"""A connection's bytes, as amqtt and the hub's own read loop both take them: straight over TLS, or
in the binary frames of a WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from aiohttp import WSMsgType
from aiohttp.web_exceptions import HTTPBadRequest
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import StreamResponse
from aiohttp.web_ws import WebSocketResponse
from amqtt.adapters import ReaderAdapter, WriterAdapter

from emulator.hub.core import limits

# How much may wait to be read.
READ_BYTES = 64 * 1024

# How much is taken at once: a turn of some tens of microseconds.
_AT_ONCE_BYTES = 2 * 1024

# What asyncio's transport of TLS raises on Python 3.10 where its connection was lost.
_LOST = AttributeError

# How many frames of a WebSocket are taken at a stretch.
_TURN = 128

# How long a peer may take to take its last bytes, and to say goodbye in TLS, before it is cut off.
_CLOSE_SECONDS = 0.5


class Stream(ReaderAdapter, WriterAdapter):
    """One connection, both ways.

    What is written while the stream is corked goes out together, in order, at the next `drain`.
    """

    def __init__(self) -> None:
        self._corked: list[bytes] | None = None
        self.held = 0
        self.at_once: Callable[[bytes], None] | None = None
        """Takes a few bytes that come while the reader waits for some, and saves its waking up."""

    def cork(self) -> None:
        """Hold back what is written, until `drain`; `held` counts its bytes."""
        self._corked = []

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting; on a connection that has ended, to nowhere."""
        if self._corked is not None:
            self._corked.append(data)
            self.held += len(data)
        else:
            self._send(data)

    def uncork(self) -> None:
        """Send what was held back."""
        held, self._corked, self.held = self._corked, None, 0
        if held:
            self._send(b"".join(held))

    async def drain(self) -> None:
        """Send what was held back, and wait while the peer doesn't read."""
        self.uncork()
        await self._sent()

    async def close(self) -> None:
        """End the connection as `drop` does, and wait until it has ended."""
        self.drop()
        with contextlib.suppress(OSError):  # the peer was faster
            await self._ended()

    def feed_eof(self) -> None:
        """Do nothing: amqtt's interface has it, and nothing calls it."""

    @property
    @abstractmethod
    def unsent(self) -> int:
        """How many bytes wait for the peer to read."""

    @abstractmethod
    def drop(self) -> None:
        """End the connection: what was written still goes out, but a peer that stalls is cut."""

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    async def _sent(self) -> None: ...

    @abstractmethod
    async def _ended(self) -> None: ...


class TcpStream(Stream, asyncio.BufferedProtocol):
    """A connection over TLS.

    It is asyncio's own protocol of the connection: asyncio's streams would cost a turn of a task
    for each packet, and memory for each device.

    Args:
        serve: speaks to the peer; the connection ends when it returns.
        buffer: where bytes arrive. All connections of an event loop can share one, for what has
            arrived is taken out before the loop turns to another.
    """

    def __init__(
        self, serve: Callable[[Stream], Coroutine[Any, Any, None]], buffer: memoryview
    ) -> None:
        super().__init__()
        self._buffer = buffer
        self._serve = serve
        self._received = bytearray()
        self._at_end = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._full: asyncio.Future[None] | None = None

    # --- asyncio's end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._gone = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._serve(self))

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        take = self.at_once
        # Whether there is little, the reader waits for bytes, and the peer takes ours.
        if (
            take is not None
            and nbytes <= _AT_ONCE_BYTES
            and self._reader is not None
            and self._full is None
        ):
            try:
                take(bytes(self._buffer[:nbytes]))
            except Exception as error:  # noqa: BLE001 - raised by `read`
                self._error = error
                self._wake()
            return
        self._received += self._buffer[:nbytes]
        if len(self._received) > READ_BYTES:
            with contextlib.suppress(_LOST):
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._at_end = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._at_end = True
        self._error = self._error or exc
        self._gone.set_result(None)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._full = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._full is not None:
            self._full.set_result(None)
            self._full = None

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():  # else its task has been cancelled
            reader.set_result(None)

    # --- the hub's end

    async def read(self, n: int = -1) -> bytes:
        """Read what there is, at most `n` bytes; empty at the end.

        Raises:
            OSError: the connection broke.
            ProtocolError: of `at_once`.
        """
        if not (self._received or self._at_end or self._error):
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._received:
            count = len(self._received) if n < 0 else n
            data = bytes(self._received[:count])
            del self._received[:count]
            with contextlib.suppress(_LOST):
                self._transport.resume_reading()
            return data
        if self._error is not None:
            raise self._error
        return b""

    @property
    def unsent(self) -> int:
        """See `Stream.unsent`."""
        try:
            return self.held + self._transport.get_write_buffer_size()
        except _LOST:
            return self.held

    def get_peer_info(self) -> tuple[str, int] | None:
        """Tell the peer's address and port."""
        peer = self._transport.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Give the TLS object."""
        info: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return info

    def drop(self) -> None:
        """See `Stream.drop`."""
        if not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._transport.abort)

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def _sent(self) -> None:
        if self._full is not None:
            await self._full

    async def _ended(self) -> None:
        await self._gone
        # uvloop's transport of TLS holds on to its protocol, and an error to where it was raised:
        # in a circle, all would wait for the garbage collector, with 45 KB of buffers.
        del self._transport
        self._error = None


class WebSocketStream(Stream):
    """A connection over a WebSocket (MQTT 3.1.1, section 6)."""

    def __init__(self, socket: WebSocketResponse, transport: asyncio.Transport | None) -> None:
        super().__init__()
        self._socket = socket
        self._transport = transport
        self._outgoing = bytearray()
        self._frames = 0
        self._sender: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[bool] | None = None

    async def read(self, n: int = -1) -> bytes:
        """Read the next frame; empty at the end, and for one that is not binary, which ends it."""
        while True:
            frame = await self._socket.receive()
            self._frames += 1
            if self._frames % _TURN == 0:
                await asyncio.sleep(0)  # frames that wait already come without a pause
            if frame.type is WSMsgType.PING:
                await self._socket.pong(frame.data)
            elif frame.type not in (WSMsgType.BINARY, WSMsgType.PONG):
                return b""
            elif frame.type is WSMsgType.BINARY and frame.data:  # one may be empty
                return bytes(frame.data)

    @property
    def unsent(self) -> int:
        """See `Stream.unsent`."""
        return self.held + len(self._outgoing)

    def get_peer_info(self) -> tuple[str, int] | None:
        """Tell the peer's address and port."""
        peer = self._socket.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Give the TLS object."""
        info: ssl.SSLObject | None = self._socket.get_extra_info("ssl_object")
        return info

    def drop(self) -> None:
        """See `Stream.drop`."""
        if self._closer is None:
            self._closer = asyncio.ensure_future(self._socket.close())
            if self._transport is not None:
                asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._transport.abort)

    def _send(self, data: bytes) -> None:
        self._outgoing += data
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send_frames())

    async def _send_frames(self) -> None:
        with contextlib.suppress(ConnectionError):  # it has ended: `read` says so as well
            while self._outgoing:
                frame = bytes(self._outgoing)
                await self._socket.send_bytes(frame)
                del self._outgoing[: len(frame)]

    async def _sent(self) -> None:
        if self._sender is not None:
            await self._sender

    async def _ended(self) -> None:
        if self._closer is not None:
            await self._closer


def web_socket_handler(
    serve: Callable[[Stream], Awaitable[None]],
) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """Make the HTTP handler that upgrades a request, and serves MQTT on it until it ends."""

    async def upgrade(request: BaseRequest) -> StreamResponse:
        socket = WebSocketResponse(
            protocols=("mqtt",),
            max_msg_size=limits.MQTT_PACKET_BYTES,
            timeout=_CLOSE_SECONDS,
            compress=False,
            autoping=False,  # else a flood of pings is answered where no other device has its turn
        )
        if socket.can_prepare(request).protocol != "mqtt":
            raise HTTPBadRequest(reason="A WebSocket with the subprotocol mqtt is wanted")
        await socket.prepare(request)
        stream = WebSocketStream(socket, request.transport)
        await serve(stream)
        return socket

    return upgrade
