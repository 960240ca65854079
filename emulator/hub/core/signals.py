"""Signals: tasks wait for a change, for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from emulator.hub.core.clock import TimeSource, wake

_T = TypeVar("_T")


class Signal:
    """Wakes the tasks that wait for it.

    Args:
        clock: the time of the hub if the hub waits, and that of the machine if a client does.
    """

    def __init__(self, clock: TimeSource) -> None:
        self._clock = clock
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def awaited(self) -> bool:
        """Whether a task waits for the signal."""
        return bool(self._waiters)

    def send(self) -> None:
        """Wake every task that waits."""
        for waiter in self._waiters:
            wake(waiter)

    async def wait_for(self, find: Callable[[], _T], seconds: float) -> _T:
        """Call `find` now and after each signal, until its result is true or `seconds` have passed.

        Returns:
            The last result of `find`.
        """
        deadline = self._clock.monotonic() + seconds
        while not (found := find()) and (left := deadline - self._clock.monotonic()) > 0:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(left, wake, waiter)
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiters.discard(waiter)
        return found
