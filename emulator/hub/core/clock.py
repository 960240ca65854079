"""The clock of a hub: the one source of time for everything that stamps, waits or expires.

It shows the time of the machine, and can be advanced: then everything that becomes due is done at
once, in order, each at its time. The rule for what takes which time:

- The hub's time, `Clock`: what a hub promises. Stamps; the expiry of credentials that are in use;
  MQTT's keep-alive; locks, expiry and retention of messages; the start and the time-outs of jobs;
  the time-outs of methods; throttles.
- The machine's time, `Clock.machine`: what protects real sockets and threads, and what was made
  with the machine's time. Handshakes, first bytes, incomplete requests, AMQP's idle time-out, slow
  readers, the ends of connections; slices of long work; the signs of life of a stream; tokens that
  arrive, and the validity of certificates. A wait for a client or a thread is of this kind, too:
  an advance makes neither faster.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from emulator.hub.core.timers import ScheduledCall, Timers

log = logging.getLogger(__name__)

MAX_AHEAD = timedelta(days=3650)
"""How far the hub's time can be ahead of the machine's; ours. Times must fit in a `datetime`."""

# A woken task needs a turn of the event loop for each task or future that it is behind. Tests have
# found no work of the hub that needs more than five.
_TURNS = 20

# uvloop counts whole milliseconds, and its timers can be early by more than one.
_EARLY = 0.002  # seconds

# A timer for a far time would overflow in the event loop.
_FAR = 24 * 3600.0  # seconds


class Timer(Protocol):
    """A call that a clock has scheduled."""

    def cancel(self) -> None:
        """Cancel the call; this has no effect after the call."""


class TimeSource(Protocol):
    """A source of time and of timers."""

    def now(self) -> datetime:
        """Return the time of day in UTC."""

    def monotonic(self) -> float:
        """Return a number of seconds that never decreases; only differences have a meaning."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback` on the event loop after some seconds."""


class Machine:
    """The clock of the machine, and the timers of the running event loop."""

    monotonic = staticmethod(time.monotonic)
    """See `TimeSource.monotonic`."""

    now = staticmethod(functools.partial(datetime.now, UTC))
    """See `TimeSource.now`."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """See `TimeSource.call_later`."""
        return asyncio.get_running_loop().call_later(seconds, callback, *args)


class Clock:
    """The clock of a hub: the time of the machine, and what it was advanced by.

    It stands still while it is moved: then `now` is the due time of the timer that is called.
    Apart from a machine whose clock is set back, it never runs backwards.

    Args:
        machine: the time of the machine.
    """

    def __init__(self, machine: TimeSource | None = None) -> None:
        self._machine = machine or Machine()
        self._timers = Timers()
        self._shift = timedelta()
        self._ahead = 0.0  # `_shift` in seconds
        self._stands: tuple[float, datetime] | None = None  # `monotonic` and `now`, while it moves
        # The machine's timers for `_ring`; the last one is the next. Most timers are cancelled, or
        # due at once: so none of these is cancelled or set again for them.
        self._alarms: list[tuple[float, Timer]] = []
        self._alarm_due = math.inf  # of the last one
        self._moves = asyncio.Lock()

    @property
    def machine(self) -> TimeSource:
        """The time of the machine, which no advance moves."""
        return self._machine

    @property
    def ahead(self) -> float:
        """How many seconds it is ahead of the machine: what it was advanced by."""
        return self._ahead

    def now(self) -> datetime:
        """Return the time of day in UTC."""
        if self._stands is not None:
            return self._stands[1]
        return self._machine.now() + self._shift if self._ahead else self._machine.now()

    def monotonic(self) -> float:
        """Return a number of seconds that never decreases; only differences have a meaning."""
        if self._stands is not None:
            return self._stands[0]
        return self._machine.monotonic() + self._ahead

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback` on the event loop after some seconds."""
        due = self.monotonic() + seconds
        timer = self._timers.add(due, callback, args)
        if due < self._alarm_due:
            self._set_alarm(due)
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    async def pass_time(self, seconds: float) -> None:
        """Move the clock ahead. Return when everything that becomes due is done.

        Each timer is called at its time, also those that begin meanwhile. Between two of them the
        event loop has its turns: the tasks that a timer wakes run at the timer's time.

        Raises:
            ValueError: `seconds` is not more than 0, or the clock would be further ahead of the
                machine than `MAX_AHEAD`. The text is one line.
        """
        self._check_span(seconds)
        async with self._moves:
            self._check_span(seconds)  # another caller can have moved the clock meanwhile
            end = self._stop() + seconds
            reached = None
            try:
                await _take_turns()
                while timer := self._step(end):
                    try:
                        timer.make()
                    except Exception:
                        log.exception("A timer failed")
                    await _take_turns()
                await _take_turns()
                reached = self._shift + timedelta(seconds=seconds)
            finally:
                self._go_on(reached)

    # ---

    def _check_span(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"Invalid advance: {seconds:g} s. Use more than 0 s")
        if seconds > MAX_AHEAD.total_seconds() - self._ahead:
            raise ValueError(
                f"Invalid advance: {seconds:g} s. The clock is {self._ahead:g} s ahead of the "
                f"machine; {MAX_AHEAD.total_seconds():.0f} s ({MAX_AHEAD.days} days) are allowed"
            )

    def _stop(self) -> float:
        """Let the clock stand still; return its time."""
        self._stands = stands = self.monotonic(), self.now()
        for _, alarm in self._alarms:
            alarm.cancel()
        self._alarms, self._alarm_due = [], -math.inf  # no timer needs the machine meanwhile
        return stands[0]

    def _step(self, end: float) -> ScheduledCall | None:
        """Move to the next timer until a time, and return it; move to that time without one."""
        found = self._timers.pop(end)
        self._move_to(end if found is None else found[0])
        return found and found[1]

    def _move_to(self, time: float) -> None:
        assert self._stands is not None  # noqa: S101 - see `_stop`
        stood, now = self._stands
        if time > stood:
            self._stands = time, now + timedelta(seconds=time - stood)

    def _go_on(self, shift: timedelta | None) -> None:
        """Let the clock run.

        Args:
            shift: how far it is ahead; None is from where it stands.
        """
        assert self._stands is not None  # noqa: S101 - see `_stop`
        if shift is None:
            shift = timedelta(seconds=self._stands[0] - self._machine.monotonic())
        self._shift, self._ahead = shift, shift.total_seconds()
        self._stands = None
        self._keep_alarm()

    # --- the machine's timers

    def _set_alarm(self, due: float) -> None:
        """Let the machine call `_ring` at a time that is earlier than that of all alarms."""
        seconds = due - self.monotonic()
        if seconds > _FAR:
            due, seconds = due - seconds + _FAR, _FAR
        self._alarm_due = due
        self._alarms.append((due, self._machine.call_later(max(seconds, 0.0), self._ring)))

    def _keep_alarm(self) -> None:
        """Set an alarm for the next timer, unless there is one."""
        self._alarm_due = self._alarms[-1][0] if self._alarms else math.inf
        if (due := self._timers.next_due) < self._alarm_due:
            self._set_alarm(due)

    def _ring(self) -> None:
        """Call the timers that are due; not those that they start."""
        self._alarms.pop()
        self._alarm_due = -math.inf  # one alarm for all that begin meanwhile
        end, before = self.monotonic() + _EARLY, self._timers.begin()
        try:
            while found := self._timers.pop(end, before):
                found[1].make()
        finally:  # a timer that fails is reported by the event loop
            self._keep_alarm()


def wake(waiter: asyncio.Future[None]) -> None:
    """Wake the task that waits for a future, if it still does."""
    if not waiter.done():
        waiter.set_result(None)


async def _take_turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
