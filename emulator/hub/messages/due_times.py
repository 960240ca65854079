"""When time alone changes a queue: a lock lapses, or an item expires. One timer for each queue."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

from emulator.hub.core.clock import Clock, Timer
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.turns import SharedTurn
from emulator.hub.messages.locks import Queued, due

# While the store can't write, a queue that is due waits so long for the next attempt.
_AGAIN = timedelta(seconds=1)


class DueTimes:
    """The next due time of each queue, and its timer.

    Args:
        clock: the clock of the hub.
        turn: what many queues share that are due at the same time.
        settle: settles the queue with a name, and returns its items. It can raise
            `ServiceUnavailable`.
    """

    def __init__(
        self, clock: Clock, turn: SharedTurn, settle: Callable[[str], Collection[Queued]]
    ) -> None:
        self._clock = clock
        self._turn = turn
        self._settle = settle
        self._timers: dict[str, tuple[datetime, Timer]] = {}

    def watch(self, name: str, items: Collection[Queued]) -> None:
        """Settle a queue when the first of its items is due."""
        if items:
            self._set(name, min(map(due, items)))

    def stop(self) -> None:
        """Settle no queue any more."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _set(self, name: str, time: datetime) -> None:
        if (earlier := self._timers.get(name)) is not None:
            if earlier[0] <= time:
                return
            earlier[1].cancel()
        seconds = (time - self._clock.now()).total_seconds()
        ring = partial(self._ring, name)
        self._timers[name] = time, self._clock.call_later(seconds, self._turn.call_soon, ring)

    def _ring(self, name: str) -> None:
        if self._timers.pop(name, None) is None:
            return  # it was stopped
        try:
            self.watch(name, self._settle(name))
        except ServiceUnavailable:  # the store has logged it
            self._set(name, self._clock.now() + _AGAIN)
