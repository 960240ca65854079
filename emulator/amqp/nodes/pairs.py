"""Pairs of links: a device sends by one link, and receives by the other.

Both links have the same `com.microsoft:channel-correlation-id` (SDKs for C#, Java and Node). An
address can have several pairs.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.performatives import SENDER

_CHANNEL = "com.microsoft:channel-correlation-id"


class _Handler(Protocol):
    @property
    def link(self) -> Any: ...


R = TypeVar("R", bound=_Handler)


class Pairs(Generic[R]):
    """The pairs of a device at one address; R takes the links by which it receives."""

    def __init__(self) -> None:
        self._sending: dict[str, _Handler] = {}
        self._receiving: dict[str, R] = {}

    def complete(self) -> list[R]:
        """Return the receiving links of the pairs with both links, the newest last."""
        return [
            each
            for name, each in self._receiving.items()
            if name in self._sending and each.link.attached
        ]

    def partner(self, sending: _Handler) -> R | None:
        """Return the receiving link of a pair; None if it is not attached."""
        return self._receiving.get(_name(sending))

    def add(self, handler: _Handler) -> None:
        """Add a link to its pair, in place of an older one."""
        side, name = self._side(handler), _name(handler)
        old, side[name] = side.get(name), handler
        replace(old)

    def remove(self, handler: _Handler) -> None:
        """Remove a link that has ended, unless a newer one has its place."""
        side, name = self._side(handler), _name(handler)
        if side.get(name) is handler:
            del side[name]

    def _side(self, handler: _Handler) -> dict[str, Any]:
        # The device receives where the hub is the sender.
        return self._receiving if handler.link.role == SENDER else self._sending


def _name(handler: _Handler) -> str:
    return str(handler.link.properties.get(_CHANNEL, ""))


def replace(old: _Handler | None) -> None:
    """End a link whose place a newer one took."""
    if old is not None:
        error = AmqpError(Condition.STOLEN, "A newer link took the place of this link.")
        old.link.drop(error)
