"""How a queue lends out what it holds: cloud-to-device messages, and batches of feedback.

A receiver gets an item under a lock. While the lock holds nobody else gets the item; the receiver
ends it or gives it back with the lock's token. A lock that lapses gives it back as well (IoT Hub
docs: the cloud-to-device message life cycle).

A queue is a tuple in sequence order, and an item that comes back is in its old place. Every
function but `settle` and `due` takes items that were settled at the same moment, so that a lock
which is there holds.
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
    """A receiver's hold on an item.

    Args:
        token: a UUID, whose sixteen bytes are AMQP's delivery tag.
        until: when the lock lapses, unless it is given back before.
    """

    token: str
    until: datetime


class Queued(Struct, frozen=True, kw_only=True):
    """What any item of a queue has.

    Args:
        sequence_number: counts from 1 in each queue.
        enqueued: when it came.
        expires: when it dies if nobody has ended it. A receiver that holds it then may still end
            it; given back, it dies. IoT Hub docs are silent here; Service Bus, which has the same
            life cycle, does so.
        delivery_count: how often it was abandoned. A lapsed lock or a lost connection doesn't
            count (IoT Hub docs: delivery count behavior).
        handed_out: a receiver held it before the present lock, if there is one, and gave it back:
            MQTT's DUP flag.
        lock: None while it waits for a receiver.
    """

    sequence_number: int
    enqueued: datetime
    expires: datetime
    delivery_count: int = 0
    handed_out: bool = False
    lock: Lock | None = None


Item = TypeVar("Item", bound=Queued)


def settle(items: tuple[Item, ...], now: datetime) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Remove the locks that have lapsed, and separate the expired items from the others.

    Returns:
        The items that stay, which are `items` itself if the time has changed nothing, and the
        expired ones.
    """
    if not any(_is_due(item, now) for item in items):
        return items, ()
    kept: list[Item] = []
    expired: list[Item] = []
    for item in items:
        settled = _unlocked(item) if item.lock is not None and item.lock.until <= now else item
        over = settled.lock is None and settled.expires <= now
        (expired if over else kept).append(settled)
    return tuple(kept), tuple(expired)


def _is_due(item: Queued, now: datetime) -> bool:
    """Return whether the time changes an item: its lock has lapsed, or it has expired."""
    return (item.expires if item.lock is None else item.lock.until) <= now


def lend(items: tuple[Item, ...], until: datetime | None) -> tuple[tuple[Item, ...], Item | None]:
    """Lock the first item that waits, and give it; None if there is none.

    The lock holds `until` then, or if that is None until the item expires.
    """
    for place, item in enumerate(items):
        if item.lock is None:
            lent = replace(item, lock=Lock(str(uuid.uuid4()), until or item.expires))
            return (*items[:place], lent, *items[place + 1 :]), lent
    return items, None


def end(items: tuple[Item, ...], token: str) -> tuple[tuple[Item, ...], Item]:
    """Take a lent item out of the queue for good.

    Raises:
        DeviceMessageLockLost: no lock has this token.
    """
    place = _place(items, token)
    return (*items[:place], *items[place + 1 :]), items[place]


def abandon(
    items: tuple[Item, ...], token: str, deliveries: int
) -> tuple[tuple[Item, ...], Item | None]:
    """Give a lent item back, and count that.

    Returns:
        the items, and the item itself if it was its last delivery of `deliveries`; it has left the
        queue then.

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
    """Give back what a receiver holds that is gone; it doesn't count."""
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
