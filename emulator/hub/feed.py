"""The feed of changes: every change of a hub's state, as it happens, in order.

Each feature declares its changes beside the values that they are about, in its `changes.py`. A
change is published after its commit. Features, heads and tools subscribe to the kinds of change
that they need, and the publisher knows none of them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

log = logging.getLogger(__name__)


class Change(Struct, frozen=True):
    """Something that happened in the hub. Each kind of change is a class of its own."""


C = TypeVar("C", bound=Change)
Handler = Callable[[Any], object]


class Feed:
    """Delivers changes to their subscribers.

    A subscriber is called before `publish` returns, in the order of subscription. A change that a
    subscriber causes is delivered after the present one, so that all subscribers see one order.
    """

    def __init__(self) -> None:
        self._handlers: dict[type[Change], list[Handler]] = {}
        self._waiting: deque[Change] = deque()
        self._delivering = False

    def subscribe(self, kind: type[C], handler: Callable[[C], object]) -> Callable[[], None]:
        """Call `handler` with each change of a kind; `Change` itself stands for every kind.

        Returns:
            A function that ends the subscription.
        """
        handlers = self._handlers.setdefault(kind, [])
        handlers.append(handler)
        return lambda: handlers.remove(handler)

    def publish(self, change: Change) -> None:
        """Deliver a change, unless others are being delivered: then it follows them."""
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
                except Exception:
                    # The change has happened: the other subscribers must still see it.
                    log.exception("A subscriber to %s failed", type(change).__name__)
