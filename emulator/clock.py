"""The clock of a running emulator, for programs: `hub.clock.advance(hours=1)`."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime, timedelta

from emulator import event_loop
from emulator.hub.core.clock import Clock

# How long an advance may take. Months with many devices take seconds.
_ADVANCE_SECONDS = 120.0


class EmulatorClock:
    """The time of a hub, from any thread.

    Args:
        clock: the clock of the hub.
        loop: the event loop that the hub runs in.
    """

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop

    def now(self) -> datetime:
        """Return the time of the hub, in UTC."""
        return event_loop.call(self._loop, self._clock.now)

    @property
    def advanced_by(self) -> timedelta:
        """How far the hub is ahead of the machine."""
        return timedelta(seconds=event_loop.call(self._loop, lambda: self._clock.ahead))

    def advance(
        self,
        span: timedelta | None = None,
        /,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
    ) -> datetime:
        """Advance the clock, and do everything that becomes due, each at its time.

        It returns when all of it is done. `advance(hours=1)` is the same as
        `advance(timedelta(hours=1))`.

        Returns:
            The time of the hub after it.

        Raises:
            ValueError: the span is not more than 0, or too long.
            RuntimeError: the hub runs in this event loop, which cannot wait for itself: use
                `advance_async`. Or the hub stopped meanwhile.
            TimeoutError: it took more than two minutes.
        """
        if event_loop.is_running_here(self._loop):
            raise RuntimeError(
                "The hub runs in this event loop, which advance would block. "
                "Use: await hub.clock.advance_async(hours=1)"
            )
        total = _seconds(span, weeks, days, hours, minutes, seconds, milliseconds)
        return event_loop.wait(self._loop, self._pass_time(total), _ADVANCE_SECONDS)

    async def advance_async(
        self,
        span: timedelta | None = None,
        /,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
    ) -> datetime:
        """As `advance`, for programs in any event loop.

        Returns:
            The time of the hub after it.

        Raises:
            ValueError: as `advance`.
        """
        total = _seconds(span, weeks, days, hours, minutes, seconds, milliseconds)
        return await event_loop.wait_async(self._loop, self._pass_time(total))

    async def _pass_time(self, seconds: float) -> datetime:
        await self._clock.pass_time(seconds)
        return self._clock.now()


def _seconds(span: timedelta | None, *parts: float) -> float:
    """Return a span in seconds; one that no `timedelta` can have is not a number, or infinite."""
    if not isinstance(span, timedelta | None):
        raise TypeError(f"Invalid span: {span!r}. Use advance(seconds=5), or a timedelta.")
    weeks, days, hours, minutes, seconds, milliseconds = parts
    return (span.total_seconds() if span is not None else 0) + math.fsum(
        (
            weeks * 604_800,
            days * 86_400,
            hours * 3600,
            minutes * 60,
            seconds,
            milliseconds / 1000,
        )
    )
