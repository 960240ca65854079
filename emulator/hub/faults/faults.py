"""The faults that are on: they are added, they happen, and they end.

All are off by default. `active` is false while none is on, so that a request pays one test.
"""

from __future__ import annotations

import logging
from random import Random

from emulator.hub.access.operations import Operation
from emulator.hub.core.clock import Clock, Timer
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.printable import printable
from emulator.hub.faults.fault import Fault
from emulator.hub.feed import Change, Feed
from emulator.hub.identities.identity import IdentityKey

log = logging.getLogger(__name__)


class FaultAdded(Change, frozen=True):
    """A fault is on."""

    id: int
    fault: Fault


class FaultHit(Change, frozen=True):
    """A fault happened.

    Args:
        key: the identity that it happened to; None is a caller that is not a device.
        operation: the operation that it affected; None where it needs no request.
    """

    id: int
    fault: Fault
    key: IdentityKey | None
    operation: Operation | None


class FaultEnded(Change, frozen=True):
    """A fault is off: it was removed, or its count or its duration has run out."""

    id: int
    fault: Fault
    hits: int


class _Running:
    """A fault that is on."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.id = number
        self.fault = fault
        self.hits = 0
        self.timer: Timer | None = None
        self._random = Random(fault.seed)  # noqa: S311 - a course that can be repeated

    def happens(self) -> bool:
        """Return whether the fault happens this time."""
        return not self.is_used_up and self._random.random() < self.fault.probability

    @property
    def is_used_up(self) -> bool:
        """Whether it has happened as often as it is to happen."""
        return self.fault.count is not None and self.hits >= self.fault.count


class Faults:
    """The faults of a hub.

    Args:
        feed: the feed of the hub.
        clock: the clock of the hub.
        takes_requests: whether devices can ask for faults by messages: see `requests`.
    """

    def __init__(self, feed: Feed, clock: Clock, *, takes_requests: bool = False) -> None:
        self.takes_requests = takes_requests
        self.active = takes_requests
        """Whether a fault can be on: while it is false, nothing needs to ask for a match."""
        self._feed = feed
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._last = 0

    def add(self, fault: Fault) -> int:
        """Turn a fault on, and return its id."""
        self._last += 1
        running = self._running[self._last] = _Running(self._last, fault)
        self.active = True
        log.info("Fault %d is on: %s", running.id, printable(dumps(fault.document()).decode()))
        if fault.duration is not None:
            running.timer = self._clock.call_later(fault.duration, self._end, running)
        self._feed.publish(FaultAdded(running.id, fault))
        return running.id

    def remove(self, number: int) -> None:
        """Turn a fault off.

        Raises:
            ArgumentInvalid: the id is unknown; the fault can have ended.
        """
        if (running := self._running.get(number)) is None:
            known = ", ".join(map(str, self._running)) or "there are no faults"
            raise ArgumentInvalid(f"Unknown fault: {number}. The ids of the faults: {known}")
        self._end(running)

    def discard(self, number: int) -> None:
        """Turn a fault off, unless it has ended."""
        if running := self._running.get(number):
            self._end(running)

    def clear(self) -> None:
        """Turn all faults off."""
        for running in list(self._running.values()):
            self._end(running)

    def list(self) -> list[JsonObject]:
        """Return each fault as a document, with its `id` and its `hits`."""
        return [
            {"id": each.id, "hits": each.hits, **each.fault.document()}
            for each in self._running.values()
        ]

    def match(
        self,
        kind: str,
        key: IdentityKey | None,
        operation: Operation | None = None,
        *,
        number: int | None = None,
    ) -> Fault | None:
        """Return the oldest fault of a kind that happens now, and count it; None if none does.

        Args:
            kind: the kind.
            key: the identity to which it would happen; None for a caller that is not a device.
            operation: the operation that it would affect; None where it needs no request.
            number: the id of the only fault that can happen; None is all.
        """
        for running in self._running.values():
            fault = running.fault
            if (
                fault.kind == kind
                and number in (None, running.id)
                and fault.selects(key)
                and fault.affects(operation)
                and running.happens()
            ):
                self._count(running, key, operation)
                return fault
        return None

    def _count(
        self, running: _Running, key: IdentityKey | None, operation: Operation | None
    ) -> None:
        running.hits += 1
        # A device can send thousands of packets: the first hit has a line, and so has the end.
        if running.hits == 1:
            affected = key or "a service"
            log.info("Fault %d (%r) hit %s", running.id, running.fault.kind, printable(affected))
        self._feed.publish(FaultHit(running.id, running.fault, key, operation))
        if running.is_used_up:
            self.discard(running.id)

    def _end(self, running: _Running) -> None:
        del self._running[running.id]
        self.active = self.takes_requests or bool(self._running)
        if running.timer is not None:
            running.timer.cancel()
        log.info("Fault %d (%r) is off: %d hits", running.id, running.fault.kind, running.hits)
        self._feed.publish(FaultEnded(running.id, running.fault, running.hits))
