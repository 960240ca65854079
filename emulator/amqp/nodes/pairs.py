"""Pairs of links: a device sends by one link, and receives by the other.

Both links have the same `com.microsoft:channel-correlation-id` (SDKs for C#, Java and Node). An
address can have several pairs.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from emulator.amqp.errors import AmqpError

_CHANNEL = "com.microsoft:channel-correlation-id"


class _Handler(Protocol):
    @property
    def link(self) -> Any: ...


S = TypeVar("S", bound=_Handler)
R = TypeVar("R", bound=_Handler)


class Pair(Generic[S, R]):
    """One pair; a link that is not attached is None."""

    def __init__(self) -> None:
        self.sends: S | None = None
        self.receives: R | None = None


class Pairs(Generic[S, R]):
    """The pairs of a device at one address."""

    def __init__(self) -> None:
        self._pairs: dict[str, Pair[S, R]] = {}

    def complete(self) -> list[R]:
        """Return the receiving links of the pairs with both links, the newest last."""
        found = [pair.receives for pair in self._pairs.values() if pair.sends is not None]
        return [each for each in found if each is not None]

    def add_sending(self, handler: S) -> Pair[S, R]:
        """Add a link to its pair, in place of an older one."""
        pair = self._pair(handler)
        old, pair.sends = pair.sends, handler
        _replace(old)
        return pair

    def add_receiving(self, handler: R) -> Pair[S, R]:
        """Add a link to its pair, in place of an older one."""
        pair = self._pair(handler)
        old, pair.receives = pair.receives, handler
        _replace(old)
        return pair

    def remove(self, handler: S | R) -> None:
        """Remove a link that has ended."""
        name = _name(handler)
        pair = self._pairs.get(name)
        if pair is None:
            return
        if pair.sends is handler:
            pair.sends = None
        elif pair.receives is handler:
            pair.receives = None
        if pair.sends is None and pair.receives is None:
            del self._pairs[name]

    def _pair(self, handler: _Handler) -> Pair[S, R]:
        return self._pairs.setdefault(_name(handler), Pair())


def _name(handler: _Handler) -> str:
    properties = handler.link.attach.properties or {}
    return str(properties.get(_CHANNEL, ""))


def _replace(old: _Handler | None) -> None:
    if old is not None:
        old.link.drop(AmqpError("amqp:link:stolen", "A newer link took the place of this link."))
