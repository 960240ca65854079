"""A clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from emulator.hub.core.clock import Clock, Timer, TimeSource
from emulator.hub.core.timers import ScheduledCall, Timers

START = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)


class StoppedMachine:
    """A machine whose time stands still: it calls no timer."""

    def __init__(self, start: datetime) -> None:
        self.time = start

    def now(self) -> datetime:
        """See `TimeSource.now`."""
        return self.time

    def monotonic(self) -> float:
        """See `TimeSource.monotonic`."""
        return 0.0

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """See `TimeSource.call_later`."""
        return ScheduledCall(Timers(), callback, args)


class ManualClock(Clock):
    """A `Clock` that stands still until a test moves it, and the machine's time with it."""

    def __init__(self, start: datetime = START) -> None:
        self._stopped = StoppedMachine(start)
        super().__init__(self._stopped)

    @property
    def machine(self) -> TimeSource:
        """See `Clock.machine`: tests of the hub need one time only."""
        return self

    @property
    def ahead(self) -> float:
        """See `Clock.ahead`."""
        return 0.0

    def advance(self, seconds: float) -> None:
        """Move the clock, and make the calls that become due, each at its time. No task runs."""
        end = self._stop() + seconds
        try:
            while timer := self._step(end):
                timer.make()
        finally:
            self._go_on(None)

    def change_time(self, seconds: float) -> None:
        """Change the time of day, as its user does; no timer notices."""
        self._stopped.time += timedelta(seconds=seconds)


class ApartClock(ManualClock):
    """A `ManualClock` over a machine whose time stands still when a test moves the clock."""

    @property
    def machine(self) -> TimeSource:
        """See `Clock.machine`."""
        return self._stopped

    @property
    def ahead(self) -> float:
        """See `Clock.ahead`."""
        return self._ahead


class TickingClock(ManualClock):
    """A clock over a machine on which each look at `monotonic` takes 1 ms, so that slices end."""

    def __init__(self, start: datetime = START) -> None:
        super().__init__(start)
        self._ticking = _TickingMachine(start)

    @property
    def machine(self) -> TimeSource:
        """See `Clock.machine`."""
        return self._ticking


class _TickingMachine(StoppedMachine):
    looks = 0

    def monotonic(self) -> float:
        """See `TimeSource.monotonic`."""
        self.looks += 1
        return self.looks * 0.001


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
