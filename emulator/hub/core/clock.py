"""The clock of a hub: the one source of time for everything that stamps, waits or expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """A call that a clock has scheduled."""

    def cancel(self) -> None:
        """Cancel the call; this has no effect after the call."""


class Clock(Protocol):
    """A source of time and of timers."""

    def now(self) -> datetime:
        """Return the time of day in UTC."""

    def monotonic(self) -> float:
        """Return a number of seconds that never decreases; only differences have a meaning."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback` on the event loop after some seconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""


class SystemClock:
    """The clock of the machine, and the timers of the running event loop."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """See `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(seconds, callback, *args)

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)
