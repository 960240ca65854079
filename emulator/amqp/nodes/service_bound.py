"""Queues that services read: feedback and file notifications. Several receivers share a queue."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from functools import partial
from typing import Generic, Protocol, TypeVar

from emulator.amqp.errors import AmqpError
from emulator.amqp.message import Message
from emulator.amqp.nodes.node import LinkRequest
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import SETTLED, Modified, Outcome, Released
from emulator.hub.core.clock import Timer
from emulator.hub.feed import Change
from emulator.hub.messages.locks import Queued

Item = TypeVar("Item", bound=Queued)


class Lender(Protocol[Item]):
    """A queue that lends its items under locks."""

    @property
    def queued(self) -> type[Change]:
        """The change that is published when an item waits: it is new, or was returned."""

    def receive(self) -> Item | None:
        """Return the next item, under a lock, or None if no item waits."""

    def complete(self, token: str) -> None:
        """Delete an item; a `HubError` if no item has this lock."""

    def abandon(self, token: str) -> None:
        """Return an item to the queue; a `HubError` if no item has this lock."""

    def message(self, item: Item) -> Message:
        """Return an item as a message."""


class Receiver(Generic[Item]):
    """A link by which a service receives the items of a queue."""

    def __init__(self, request: LinkRequest[OutgoingLink], queue: Lender[Item]) -> None:
        self._link = request.link
        self._request = request
        self._queue = queue
        self._look: Timer | None = None
        self._subscription = ExitStack()  # which holds this object until it is closed
        self._subscription.callback(request.hub.feed.subscribe(queue.queued, self._look_soon))

    def on_credit(self) -> None:
        """Send what waits."""
        with self._request.amqp_errors():
            while self._link.credit and (item := self._queue.receive()) is not None:
                self._send(item)

    def on_detached(self, error: AmqpError | None) -> None:
        """Look no more; what was not settled stays locked until its lock lapses."""
        self._subscription.close()
        if self._look is not None:
            self._look.cancel()

    def _look_soon(self, _: Change) -> None:
        """Look in a turn of its own: the hub can be in the middle of its work."""
        if self._look is None:
            self._look = self._request.hub.clock.call_later(0, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._link.pump()

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
            else:
                self._queue.complete(token)
