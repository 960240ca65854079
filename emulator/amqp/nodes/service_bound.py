"""Queues that services read: feedback and file notifications. Several receivers share a queue."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Generic, Protocol, TypeVar

from emulator.amqp.errors import AmqpError
from emulator.amqp.message import Message
from emulator.amqp.nodes.node import LinkRequest
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import SETTLED, Modified, Outcome, Released
from emulator.hub.core.clock import Timer
from emulator.hub.messages.locks import Queued

# How often a receiver that waits looks for items that another receiver has returned, in seconds.
# It is notified of everything else, or knows the time.
_LOOK_SECONDS = 5.0

_FOREVER = datetime.max.replace(tzinfo=UTC)

Item = TypeVar("Item", bound=Queued)


class Watcher(Protocol):
    """A receiver that waits."""

    def look_soon(self) -> None:
        """Look again, in a turn of its own: the hub can be in the middle of its work."""

    def look_at(self, time: datetime) -> None:
        """Look again at a time at the latest."""


class Lender(Protocol[Item]):
    """A queue that lends its items under locks."""

    def receive(self) -> Item | None:
        """Return the next item, under a lock, or None if no item waits."""

    def complete(self, token: str) -> None:
        """Delete an item; a `HubError` if no item has this lock."""

    def abandon(self, token: str) -> None:
        """Return an item to the queue; a `HubError` if no item has this lock."""

    def next_due(self) -> datetime | None:
        """Return the time until which time alone brings no item; None is forever."""

    def message(self, item: Item) -> Message:
        """Return an item as a message."""

    def watch(self, watcher: Watcher) -> Sequence[Callable[[], object]]:
        """Notify a receiver of what comes; return functions that end that."""


class Receiver(Generic[Item]):
    """A link by which a service receives the items of a queue."""

    def __init__(self, request: LinkRequest[OutgoingLink], queue: Lender[Item]) -> None:
        self._link = request.link
        self._request = request
        self._hub = request.hub
        self._queue = queue
        self._look: Timer | None = None  # while it waits
        self._timer: Timer | None = None
        self._due = _FOREVER  # of the timer
        self._unsubscribe = queue.watch(self)

    def on_credit(self) -> None:
        """Send what waits, and wait for more."""
        self._cancel()
        while self._link.credit:
            item = self._queue.receive()
            if item is None:
                self._wait()
                return
            self._send(item)

    def on_detached(self, error: AmqpError | None) -> None:
        """Wait no more; what was not settled stays locked until its lock lapses."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = ()  # they hold this object
        self._cancel()

    def look_soon(self) -> None:
        """See `Watcher`."""
        if self._look is not None:
            self._cancel()
            self._look = self._hub.clock.call_later(0, self.on_credit)

    def look_at(self, time: datetime) -> None:
        """See `Watcher`."""
        if self._timer is not None and time < self._due:
            self._timer.cancel()
            self._set_timer(time)

    def _wait(self) -> None:
        self._look = self._hub.clock.machine.call_later(_LOOK_SECONDS, self.on_credit)
        self._set_timer(self._queue.next_due() or _FOREVER)

    def _set_timer(self, due: datetime) -> None:
        seconds = (due - self._hub.clock.now()).total_seconds()
        self._due, self._timer = due, self._hub.clock.call_later(seconds, self.on_credit)

    def _cancel(self) -> None:
        for timer in (self._look, self._timer):
            if timer is not None:
                timer.cancel()
        self._look = self._timer = None

    def _send(self, item: Item) -> None:
        token = item.lock_token
        # In .NET's order of bytes: C# makes the lock token of the tag.
        payload, tag = self._queue.message(item).to_bytes(), uuid.UUID(token).bytes_le
        if self._link.attach.snd_settle_mode == SETTLED:
            self._queue.complete(token)
            self._link.send(payload, tag)
        else:
            self._link.send(payload, tag, on_settled=partial(self._settle, token))

    def _settle(self, token: str, outcome: Outcome | None) -> None:
        """Complete or abandon an item; one that is rejected is deleted too."""
        with self._request.amqp_errors():
            if outcome is None or isinstance(outcome, Released | Modified):
                self._queue.abandon(token)
                self.look_soon()
            else:
                self._queue.complete(token)
