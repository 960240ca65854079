"""Turns: busy connections share the event loop, so that they do not hold up a quiet one."""

from __future__ import annotations

import asyncio
from collections import deque

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
