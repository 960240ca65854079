"""Turns: busy connections and readers share the event loop, so that no quiet one is held up."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock


class Turns:
    """Lets one busy connection work in each turn of the event loop, in the order of their requests.

    A connection awaits `take` before it works. It asks `over` at each place where it can be
    interrupted, and awaits `take` again then. So all busy connections together use
    `limits.TURN_SECONDS` of each turn of the loop, however many they are. `Slices` have another
    order: the shortest work is first there, and a connection that sends without end would wait
    without end.
    """

    def __init__(self, clock: Clock) -> None:
        self._time = clock.machine.monotonic
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False  # in this turn of the event loop
        self._end = 0.0

    @property
    def over(self) -> bool:
        """Whether the time of the connection that works is used up."""
        return self._time() >= self._end

    async def take(self) -> None:
        """Wait for the next turn that no other connection has."""
        loop = asyncio.get_running_loop()
        if self._taken:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._taken = True
            loop.call_soon(self._next)
        self._end = self._time() + limits.TURN_SECONDS

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else the task was cancelled
                turn.set_result(None)
                turn.get_loop().call_soon(self._next)
                return
        self._taken = False


class SharedTurn:
    """Makes calls for `limits.TURN_SECONDS` in each turn of the event loop, all together.

    The other calls wait for a later turn, in their order. It needs no tasks, as `Turns` do.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._time = clock.machine.monotonic
        self._waiting: deque[Callable[[], object]] = deque()
        self._began = False  # and a timer ends it
        self._end = 0.0

    @property
    def over(self) -> bool:
        """Whether the time is used up, except for a call that has waited."""
        if self._began:
            return self._time() >= self._end
        self._begin()
        return False

    def call_soon(self, call: Callable[[], object]) -> None:
        """Make a call in a later turn."""
        self._waiting.append(call)
        if not self._began:
            self._begin()

    def _begin(self) -> None:
        self._began, self._end = True, self._time() + limits.TURN_SECONDS
        self._clock.call_later(0, self._next)

    def _next(self) -> None:
        end, self._end = self._time() + limits.TURN_SECONDS, math.inf
        try:
            while self._waiting:
                self._waiting.popleft()()
                if self._time() >= end:
                    break
        finally:
            self._began, self._end = bool(self._waiting), end
            if self._waiting:
                self._clock.call_later(0, self._next)
