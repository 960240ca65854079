"""The feed of changes: every change of the state of a hub, as it happens, in order.

Each feature declares its changes beside what they are about, and publishes a change after its
commit. Features, heads and tools subscribe to the kinds of change that they need. The publisher
knows no subscriber.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from emulator.hub.core.errors import ServiceUnavailable

log = logging.getLogger(__name__)


class Change(Struct, frozen=True):
    """A change of the state of the hub. Each kind of change is a subclass."""


class ServiceChange(Change, frozen=True):
    """A change of another service on the ports of the hub, such as provisioning.

    The hub and its heads know no kind of it, so it says itself what has changed.

    Args:
        subject: the id of what it is about.
        what: what has changed, in a few words: "enrollment deleted".
    """

    subject: str
    what: str


C = TypeVar("C", bound=Change)
Handler = Callable[[Any], object]


class Feed:
    """Delivers changes to their subscribers.

    `publish` calls the subscribers in the order of their subscription, and then returns. If a
    subscriber causes another change, the feed delivers it after the current one, so that all
    subscribers see the changes in the same order.
    """

    def __init__(self) -> None:
        self._handlers: dict[type[Change], list[Handler]] = {}
        self._waiting: deque[Change] = deque()
        self._delivering = False

    def subscribe(self, kind: type[C], handler: Callable[[C], object]) -> Callable[[], None]:
        """Call `handler` with each change of a kind; `Change` itself means every kind.

        Returns:
            A function that ends the subscription.
        """
        handlers = self._handlers.setdefault(kind, [])
        handlers.append(handler)
        return lambda: handlers.remove(handler)

    def publish(self, change: Change) -> None:
        """Deliver a change, after the changes that are in delivery now."""
        self._waiting.append(change)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._waiting:
                self._deliver(self._waiting.popleft())
        finally:
            self._delivering = False

    def _deliver(self, change: Change) -> None:
        for kind in (type(change), Change):
            for handler in tuple(self._handlers.get(kind, ())):
                try:
                    handler(change)
                except ServiceUnavailable:
                    pass  # the store can't write, and has logged it
                except Exception:
                    # The other subscribers must see the change too.
                    log.exception("A subscriber to %s failed", type(change).__name__)
