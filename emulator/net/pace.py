"""The pace of a slow connection: at most so many bytes in a second, each way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from emulator.hub.core.clock import Timer, TimeSource

_STEP = 0.05  # seconds between two pieces


class Pace:
    """Sends bytes piece by piece, and makes a reader wait as long as the bytes would take.

    Args:
        rate: the bytes in a second.
        clock: the source of time.
        send: sends a piece.
    """

    def __init__(self, rate: int, clock: TimeSource, send: Callable[[bytes], None]) -> None:
        self.unsent = bytearray()
        """What waits to be sent."""
        self._seconds = max(_STEP, 1 / rate)
        self._piece = max(1, int(rate * self._seconds))
        self._rate = rate
        self._clock = clock
        self._send = send
        self._timer: Timer | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, data: bytes) -> None:
        """Send bytes behind those that wait."""
        self.unsent += data
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._tick)

    async def wait(self, size: int) -> None:
        """Wait as long as the link takes for what has arrived."""
        self._reader = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(size / self._rate, self._wake)
        try:
            await self._reader
        finally:
            timer.cancel()
            self._reader = None

    def end(self) -> None:
        """Send what waits at once, and let the reader continue."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest, self.unsent = bytes(self.unsent), bytearray()
        if rest:
            self._send(rest)
        self._wake()

    def _tick(self) -> None:
        piece = bytes(self.unsent[: self._piece])
        del self.unsent[: self._piece]
        again = bool(self.unsent)
        self._timer = self._clock.call_later(self._seconds, self._tick) if again else None
        self._send(piece)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
