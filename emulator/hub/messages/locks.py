"""Locks on the items of a queue: on cloud-to-device messages, and on batches of feedback.

A receiver gets an item under a lock. While the lock holds, no other receiver gets the item. The
receiver ends the item, or returns it, with the lock's token. A lock that lapses returns the item
too (IoT Hub docs: the cloud-to-device message life cycle).

A queue is a tuple in sequence order, and a returned item has its old place. Call `settle` first:
the other functions take each lock that they find as valid.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core.errors import DeviceMessageLockLost


class Lock(Struct, frozen=True):
    """The lock of a receiver on an item.

    Args:
        token: a UUID; its 16 bytes are AMQP's delivery tag.
        until: when the lock lapses.
        of_connection: whether it ends with a connection, and so with the hub's process.
    """

    token: str
    until: datetime
    of_connection: bool = False


class Queued(Struct, frozen=True, kw_only=True):
    """An item of a queue.

    Args:
        sequence_number: counts from 1 in each queue.
        enqueued: when it was queued.
        expires: when it expires. A receiver that has locked it can still end it then; if it is
            returned, it expires. IoT Hub docs do not say this; Service Bus, which has the same life
            cycle, does so.
        delivery_count: how often it was abandoned. A lapsed lock and a lost connection are not
            counted (IoT Hub docs: delivery count behavior).
        handed_out: whether a receiver had it before, and returned it: MQTT's DUP flag.
        lock: None while it waits for a receiver.
    """

    sequence_number: int
    enqueued: datetime
    expires: datetime
    delivery_count: int = 0
    handed_out: bool = False
    lock: Lock | None = None

    @property
    def lock_token(self) -> str:
        """The token of its lock; "" while it waits."""
        return self.lock.token if self.lock else ""


Item = TypeVar("Item", bound=Queued)


def settle(items: tuple[Item, ...], now: datetime) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Remove the locks that have lapsed, and separate the expired items from the others.

    Returns:
        The items that stay, which are `items` itself if the time has changed nothing, and the
        expired ones.
    """
    if not any(due(item) <= now for item in items):
        return items, ()
    kept: list[Item] = []
    expired: list[Item] = []
    for item in items:
        settled = _unlocked(item) if item.lock is not None and item.lock.until <= now else item
        over = settled.lock is None and settled.expires <= now
        (expired if over else kept).append(settled)
    return tuple(kept), tuple(expired)


def due(item: Queued) -> datetime:
    """Return when time alone changes an item: its lock lapses, or it expires."""
    return item.expires if item.lock is None else item.lock.until


def returned(before: Iterable[Item], after: Iterable[Item]) -> list[Item]:
    """List the items of a queue that wait again: before, a receiver had them."""
    lent = {item.sequence_number for item in before if item.lock is not None}
    return [item for item in after if item.lock is None and item.sequence_number in lent]


def lend(
    items: tuple[Item, ...],
    until: datetime | None,
    *,
    of_connection: bool = False,
    skip: int = 0,
) -> tuple[tuple[Item, ...], Item | None]:
    """Lock the first item that waits.

    Args:
        items: the queue.
        until: when the lock lapses; None is when the item expires.
        of_connection: see `Lock`.
        skip: how many items that wait stay behind.

    Returns:
        The queue, and the locked item; None if no item waits.
    """
    for place, item in enumerate(items):
        if item.lock is None and (skip := skip - 1) < 0:
            lent = replace(item, lock=Lock(str(uuid.uuid4()), until or item.expires, of_connection))
            return (*items[:place], lent, *items[place + 1 :]), lent
    return items, None


def end(items: tuple[Item, ...], token: str) -> tuple[tuple[Item, ...], Item]:
    """Remove a locked item from the queue.

    Raises:
        DeviceMessageLockLost: no lock has this token.
    """
    place = _place(items, token)
    return (*items[:place], *items[place + 1 :]), items[place]


def abandon(
    items: tuple[Item, ...], token: str, deliveries: int
) -> tuple[tuple[Item, ...], Item | None]:
    """Return a locked item to the queue, and count that.

    Returns:
        The queue. And the item, if this was the last of its `deliveries`: then it is removed.

    Raises:
        DeviceMessageLockLost: no lock has this token.
    """
    place = _place(items, token)
    item = _unlocked(items[place])
    item = replace(item, delivery_count=item.delivery_count + 1)
    if item.delivery_count >= deliveries:
        return (*items[:place], *items[place + 1 :]), item
    return (*items[:place], item, *items[place + 1 :]), None


def release(items: Iterable[Item], tokens: Collection[str]) -> tuple[Item, ...]:
    """Return the items of a receiver that is gone; this is not counted."""
    return tuple(
        _unlocked(item) if item.lock is not None and item.lock.token in tokens else item
        for item in items
    )


def _unlocked(item: Item) -> Item:
    return replace(item, lock=None, handed_out=True)


def _place(items: tuple[Item, ...], token: str) -> int:
    for place, item in enumerate(items):
        if item.lock is not None and item.lock.token == token:
            return place
    raise DeviceMessageLockLost
