"""Timers in the order of their due time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

# So many cancelled timers may wait for their due time before they are removed together.
_SPARE = 64


class Timers:
    """The calls that a clock has scheduled. Those of one due time have the order of `add`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, ScheduledCall]] = []
        self._numbers = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due(self) -> float:
        """The earliest due time; infinity without a timer."""
        self._drop_cancelled()
        return self._heap[0][0] if self._heap else math.inf

    def begin(self) -> int:
        """Return a number: timers that are added from now on have higher numbers."""
        return next(self._numbers)

    def add(
        self, due: float, call: Callable[..., object], arguments: tuple[object, ...]
    ) -> ScheduledCall:
        """Add a call."""
        timer = ScheduledCall(self, call, arguments)
        heapq.heappush(self._heap, (due, next(self._numbers), timer))
        return timer

    def pop(self, end: float, before: float = math.inf) -> tuple[float, ScheduledCall] | None:
        """Remove the first timer, and return it with its due time.

        Args:
            end: None is returned if the timer is due later.
            before: None is returned if the timer does not have a lower number: see `begin`.
        """
        self._drop_cancelled()
        if not self._heap or self._heap[0][0] > end or self._heap[0][1] > before:
            return None
        due, _, timer = heapq.heappop(self._heap)
        return due, timer

    def forget(self) -> None:
        """Note that a timer was cancelled. Cancelled timers never are most of the timers."""
        self._cancelled += 1
        if self._cancelled > _SPARE and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _drop_cancelled(self) -> None:
        while self._heap and self._heap[0][2].over:
            heapq.heappop(self._heap)
            self._cancelled -= 1


class ScheduledCall:
    """A call of some `Timers`.

    It holds what it calls for as long as it waits: objects that hold their timer would otherwise
    wait for the garbage collector.
    """

    __slots__ = ("_arguments", "_call", "_timers")

    def __init__(
        self, timers: Timers, call: Callable[..., object], arguments: tuple[object, ...]
    ) -> None:
        self._timers = timers
        self._call: Callable[..., object] | None = call
        self._arguments = arguments

    @property
    def over(self) -> bool:
        """Whether it was made, or cancelled."""
        return self._call is None

    def cancel(self) -> None:
        """Cancel the call; this has no effect after the call."""
        if self._call is not None:
            self._call, self._arguments = None, ()
            self._timers.forget()

    def make(self) -> None:
        """Make the call; its `Timers` have removed it."""
        call, arguments = self._call, self._arguments
        self._call, self._arguments = None, ()
        if call is not None:
            call(*arguments)
