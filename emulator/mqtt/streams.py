"""A connection's bytes, as amqtt and the hub's own read loop both take them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from amqtt.adapters import ReaderAdapter, WriterAdapter

_READ_BYTES = 64 * 1024

# How long a peer may take to take its last bytes, and to say goodbye in TLS, before it is cut off.
_CLOSE_SECONDS = 1.0


class TcpStream(ReaderAdapter, WriterAdapter):
    """One TLS connection, both ways.

    What is written while the stream is corked goes out together, in order, at the next `drain`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._corked: list[bytes] | None = None

    async def read(self, n: int = -1) -> bytes:
        """Read what there is, at most `n` bytes; empty at the end."""
        return await self._reader.read(_READ_BYTES if n < 0 else n)

    def feed_eof(self) -> None:
        """End the reading side."""
        self._reader.feed_eof()

    def cork(self) -> None:
        """Hold back what is written, until `drain`."""
        self._corked = []

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting."""
        if self._corked is not None:
            self._corked.append(data)
        elif not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Send what was held back, and wait while the peer doesn't read."""
        held, self._corked = self._corked, None
        if held and not self._writer.is_closing():
            self._writer.write(b"".join(held))
        await self._writer.drain()

    @property
    def unsent(self) -> int:
        """How many bytes wait for the peer to read."""
        return self._writer.transport.get_write_buffer_size()

    def get_peer_info(self) -> tuple[str, int] | None:
        """Tell the peer's address and port."""
        peer = self._writer.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Give the TLS object."""
        info: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return info

    def drop(self) -> None:
        """End the connection: what was written still goes out, but a peer that stalls is cut."""
        if not self._writer.is_closing():
            self._writer.close()
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._writer.transport.abort)

    async def close(self) -> None:
        """End the connection as `drop` does, and wait until it has ended."""
        self.drop()
        with contextlib.suppress(OSError):  # the peer was faster
            await self._writer.wait_closed()
