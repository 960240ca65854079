"""Byte streams: one connection, both ways, over TCP here or in the frames of a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

from emulator.hub.core.clock import TimeSource
from emulator.hub.core.printable import printable
from emulator.net.pace import Pace

log = logging.getLogger(__name__)

# How much may wait to be read.
READ_BYTES = 64 * 1024

# How much `at_once` takes: some tens of microseconds of work.
_AT_ONCE_BYTES = 2 * 1024

# How long a peer may take to read its last bytes and to end TLS, before it is cut off.
CLOSE_SECONDS = 0.5


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the address of a peer for the log: `127.0.0.1:50000`, `[::1]:50000`."""
    address = None if transport is None else transport.get_extra_info("peername")
    if not address:
        return "an unknown address"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Let the end of a connection be a reset, as of a peer that is gone."""
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.asynccontextmanager
async def closing(stream: Stream) -> AsyncIterator[None]:
    """Close a stream at the end of a block; log why its connection broke."""
    try:
        yield
    except (ConnectionError, ssl.SSLError) as error:
        log.info("Lost the connection of %s: %s", stream.peer, printable(error))
    except Exception:
        log.exception("The connection of %s failed", stream.peer)
    finally:
        stream.close()
        await stream.wait_closed()


class Stream(ABC):
    """One connection, both ways.

    Args:
        transport: the connection; None if it has ended already.
    """

    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        self.at_once: Callable[[bytes], bool] | None = None
        """Takes a few bytes that arrive while `read` waits: its task need not wake up for them.

        It returns False if `read` is to return them.
        """
        self.on_close: Callable[[], object] | None = None
        """Called when the hub ends the connection, for a task that does not `read`."""
        self.paced: Pace | None = None
        """The pace, while a fault makes the connection slow: a reader has to wait for it."""
        self.tls: ssl.SSLObject | None = None
        self.peer = peer_of(transport)
        if transport is not None:
            self.tls = transport.get_extra_info("ssl_object")

    def write(self, data: bytes) -> None:
        """Send bytes without waiting; after the end of the connection they are discarded."""
        if self.paced is None:
            self._send(data)
        else:
            self.paced.put(data)

    def close(self) -> None:
        """End the connection; what was written still goes out, unless the peer stalls."""
        self._unpace()
        self._close()
        if self.on_close is not None:
            self.on_close()

    def abort(self) -> None:
        """Cut the connection; what waits to be sent is lost."""
        self._abort()
        self._unpace()
        if self.on_close is not None:
            self.on_close()

    def pace(self, rate: int | None, clock: TimeSource) -> None:
        """Send and read at most so many bytes in a second; None ends that."""
        self._unpace()
        self.paced = None if rate is None else Pace(rate, clock, self._send)

    def _unpace(self) -> None:
        paced, self.paced = self.paced, None
        if paced is not None:
            paced.end()

    def _held_back(self) -> int:
        """Return how many bytes wait here."""
        return 0 if self.paced is None else len(self.paced.unsent)

    @abstractmethod
    def trust(self) -> None:
        """Accept large messages from now on: the peer is known."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until a connection that was closed has ended."""

    @abstractmethod
    async def read(self) -> bytes:
        """Read what has arrived; empty at the end.

        Raises:
            OSError: the connection broke.
            Exception: what `at_once` raised.
        """

    @abstractmethod
    async def drain(self) -> None:
        """Wait while the peer does not read."""

    @abstractmethod
    def unsent(self) -> int:
        """Return how many bytes wait for the peer to read."""

    @property
    @abstractmethod
    def is_full(self) -> bool:
        """Whether much waits for the peer to read, so that `drain` waits."""

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _abort(self) -> None: ...


class TcpStream(Stream, asyncio.BufferedProtocol):
    """A connection over TLS, or over plain TCP.

    It is the asyncio protocol of the connection: asyncio's own streams would take a turn of a task
    for each packet, and memory for each device.

    Args:
        serve: speaks to the peer; the connection ends when it returns.
        buffer: where bytes arrive. All connections of an event loop can share one buffer: bytes are
            taken out before the loop turns to another connection.
    """

    def __init__(
        self, serve: Callable[[Stream], Coroutine[Any, Any, None]], buffer: memoryview
    ) -> None:
        self._buffer = buffer
        self._serve = serve
        self._received = bytearray()
        self._at_end = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._full: asyncio.Future[None] | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        super().__init__(transport)
        self._transport = cast("asyncio.Transport", transport)
        self._gone = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._serve(self))

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        # Only a few bytes, while the reader waits, and while the peer reads what we send.
        is_idle = self._reader is not None and self._full is None and self.paced is None
        if self.at_once is not None and is_idle and nbytes <= _AT_ONCE_BYTES:
            try:
                if self.at_once(bytes(self._buffer[:nbytes])):
                    return
            except Exception as error:  # noqa: BLE001 - raised by `read`
                self._error = error
                self._wake()
                return
        self._received += self._buffer[:nbytes]
        if len(self._received) > READ_BYTES:
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
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._gone.set_result(None)
        self._unpace()
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

    # --- what the server calls

    async def read(self) -> bytes:
        """See `Stream.read`."""
        if not (self._received or self._at_end or self._error):
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._received:
            data = bytes(self._received)
            self._received.clear()
            self._transport.resume_reading()
            return data
        if self._error is not None:
            raise self._error
        return b""

    def trust(self) -> None:
        """See `Stream.trust`; a stream of bytes has no messages."""

    def unsent(self) -> int:
        """See `Stream.unsent`."""
        return self._held_back() + self._transport.get_write_buffer_size()

    @property
    def is_full(self) -> bool:
        """See `Stream.is_full`."""
        return self._full is not None

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """See `Stream.drain`."""
        if self._full is not None:
            await self._full

    def _close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()
            loop = asyncio.get_running_loop()
            self._cut_off = loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def _abort(self) -> None:
        if not self._transport.is_closing():
            reset_on_close(self._transport)
            self._transport.abort()

    async def wait_closed(self) -> None:
        """See `Stream.wait_closed`."""
        await self._gone
        # uvloop's TLS transport holds its protocol, and an error holds where it was raised: in a
        # circle, all would wait for the garbage collector, with 45 KB of buffers.
        del self._transport
        self._error = None
