"""A stream without a socket, for the tests of what paces a connection."""

from __future__ import annotations

import asyncio

from emulator.net.streams import Stream

_FULL_BYTES = 64 * 1024  # as in asyncio


class FakeStream(Stream):
    """A stream whose peer is the test."""

    def __init__(self) -> None:
        super().__init__(None)
        self.sent: list[bytes] = []
        self.closed = self.trusted = False
        self.reading = asyncio.Event()
        """Whether the peer reads; while it does not, `drain` waits."""
        self.reading.set()
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()

    def arrive(self, *packets: bytes) -> None:
        """Bytes arrive in one piece."""
        self._incoming.put_nowait(b"".join(packets))

    @property
    def unread(self) -> int:
        """How many pieces wait to be read."""
        return self._incoming.qsize()

    @property
    def is_full(self) -> bool:
        """See `Stream.is_full`."""
        return self.unsent() > _FULL_BYTES

    def taken(self) -> bytes:
        """Return what was sent since the last call."""
        sent, self.sent = b"".join(self.sent), []
        return sent

    async def read(self) -> bytes:
        return await self._incoming.get()

    def trust(self) -> None:
        self.trusted = True

    def unsent(self) -> int:
        return 0 if self.reading.is_set() else sum(map(len, self.sent))

    def _send(self, data: bytes) -> None:
        if not self.closed:
            self.sent.append(data)

    async def drain(self) -> None:
        if self.is_full:
            await self.reading.wait()

    def _close(self) -> None:
        self.closed = True
        self.reading.set()
        self.arrive()

    def _abort(self) -> None:
        self._close()

    async def wait_closed(self) -> None:
        pass
