"""Slices: long work gives other work its turn, so that no request holds up the others."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Generator
from typing import TypeVar

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock

_T = TypeVar("_T")


class Slices:
    """Runs one slice of long work in each turn of the event loop, whatever waits.

    The work that has had the fewest slices is first. So a short query is answered while long ones
    run.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._taking_turns = False

    async def begin(self) -> Work:
        """Return a new piece of work, when its first slice begins."""
        work = Work(self)
        await work.rest()
        return work

    async def wait(self, slices: int) -> None:
        """Wait for the next turn of work that has had some slices."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiting, (slices, next(self._numbers), turn))
        if not self._taking_turns:
            self._taking_turns = True
            loop.call_soon(self._next)
        await turn

    def _next(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[-1]
            if not turn.done():  # else the task was cancelled
                turn.set_result(None)
                turn.get_loop().call_soon(self._next)
                return
        self._taking_turns = False


class Work:
    """One piece of long work.

    It asks `over` at each place where it can be interrupted, and awaits `rest` then.
    """

    def __init__(self, slices: Slices) -> None:
        self.slices = 0
        self._all = slices
        self._time = slices.clock.machine.monotonic
        self._end = 0.0

    @property
    def over(self) -> bool:
        """Whether the slice is used up."""
        return self._time() >= self._end

    async def rest(self) -> None:
        """Wait for the next slice."""
        await self._all.wait(self.slices)
        self.slices += 1
        self._end = self._time() + limits.SLICE_SECONDS

    async def finish(self, steps: Generator[None, None, _T]) -> _T:
        """Run a generator, with a rest at any of its steps; return its result."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: _T = end.value
                return result
            if self.over:
                await self.rest()


def at_once(steps: Generator[None, None, _T]) -> _T:
    """Run a generator without a rest; return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
