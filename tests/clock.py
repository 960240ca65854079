"""A clock that tests move."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)


class ManualTimer:
    """A call that a `ManualClock` will make."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """See `Timer.cancel`."""
        self.cancelled = True


class ManualClock:
    """A `Clock` that stands still until a test moves it."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._seconds = 0.0
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._start + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._seconds

    def call_later(
        self, seconds: float, call: Callable[..., object], *arguments: object
    ) -> ManualTimer:
        """See `Clock.call_later`."""
        timer = ManualTimer(lambda: call(*arguments))
        heapq.heappush(self._timers, (self._seconds + seconds, next(self._numbers), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: woken.done() or woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def advance(self, seconds: float) -> None:
        """Move the clock, and make the calls that become due, each at its time."""
        end = self._seconds + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._seconds = max(self._seconds, due)
            if not timer.cancelled:
                timer.call()
        self._seconds = end

    def change_time(self, seconds: float) -> None:
        """Change the time of day, as its user does; no timer notices."""
        self._start += timedelta(seconds=seconds)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, and let the tasks run that wait for it."""
        await settle()
        self.advance(seconds)
        await settle()


class TickingClock(ManualClock):
    """A clock on which each look at `monotonic` takes 1 ms, so that slices end.

    The time of day stands still.
    """

    def __init__(self, start: datetime = START) -> None:
        super().__init__(start)
        self._looks = 0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        self._looks += 1
        return self._seconds + self._looks * 0.001


async def settle(turns: int = 20) -> None:
    """Let the tasks of the event loop run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool], turns: int = 10_000) -> None:
    """Let the tasks of the event loop run until a condition holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")
