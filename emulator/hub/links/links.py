"""The open link of each connected identity, and the presence of every identity."""

from __future__ import annotations

import logging
import math
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import errors
from emulator.hub.core.clock import Clock, Timer
from emulator.hub.core.printable import printable
from emulator.hub.core.signals import Signal
from emulator.hub.core.store import Store
from emulator.hub.core.times import NEVER
from emulator.hub.faults.fault import CUT, OF_DEVICES
from emulator.hub.faults.faults import FaultAdded, FaultEnded, FaultHit, Faults
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import IdentityDeleted, IdentityKey
from emulator.hub.links.link import Admission, Connected, DeviceLink, Disconnected, Subscribed

log = logging.getLogger(__name__)


# Two programs with one identity close each other's connection again and again: SDKs connect again
# at once. Ours: each takeover has twice the delay of the one before. No client gives up within 4 s.
_TAKEOVER_DELAYS = (0, 0.25, 0.5, 1, 2, 4)  # seconds
_TAKEOVER_MEMORY = 30  # seconds without a takeover
_TAKEOVERS_OF_TWO = 2  # a single program that connects again replaces one connection


# The faults that close connections, each with the reason.
_DROPS: dict[str, type[errors.HubError]] = {
    "drop-connection": errors.ConnectionForcefullyClosedOnFaultInjection,
    "expire-token": errors.IotHubUnauthorized,
}


class Presence(Struct, frozen=True):
    """Whether an identity is connected, and when it was last active."""

    key: IdentityKey
    connected: bool = False
    state_updated: datetime = NEVER
    last_activity: datetime = NEVER


class Links:
    """The open links, at most one for each identity.

    The registry deletes the presence of an identity with the identity.
    """

    def __init__(self, store: Store, feed: Feed, clock: Clock, faults: Faults) -> None:
        self._store = store
        self._feed = feed
        self._clock = clock
        self._faults = faults
        self._links: dict[IdentityKey, DeviceLink] = {}
        self._expiries: dict[DeviceLink, Timer] = {}
        self._signals: dict[IdentityKey, Signal] = {}
        self._stopped = False
        # How many connections of an identity were replaced, each soon after the one before; and
        # when that last happened, as the clock's `monotonic` counts.
        self._replaced: dict[IdentityKey, tuple[int, float]] = {}
        # The connections of an earlier run ended with it, at the latest now.
        lost = [each for each in store.scan(Presence) if each.connected]
        now = clock.now()
        store.commit(put=[replace(each, connected=False, state_updated=now) for each in lost])
        feed.subscribe(IdentityDeleted, lambda change: self._replaced.pop(change.key, None))
        feed.subscribe(FaultAdded, self._begin_fault)
        feed.subscribe(FaultHit, self._drop_by_fault)
        feed.subscribe(FaultEnded, self._end_fault)

    # --- for heads

    def takeover_delay(self, key: IdentityKey) -> float:
        """Return how many seconds a new connection of an identity must wait before `connect`.

        It is 0 unless the identity is connected, and its connections replace each other.
        """
        number = self._takeovers(key) if key in self._links else 0
        return _TAKEOVER_DELAYS[min(number, len(_TAKEOVER_DELAYS) - 1)]

    def connect(self, link: DeviceLink, admission: Admission) -> None:
        """Register a link, and close an older link of the same identity.

        The hub closes the link when its credentials expire.
        """
        replaced = self._links.get(link.key)
        if replaced is not None:
            self._count_takeover(link.key)
            self._end(replaced, errors.ConnectionForcefullyClosedOnNewConnection())
        now = self._clock.now()
        self._links[link.key] = link
        presence = Presence(link.key, True, now, now)
        try:
            self._store.commit(put=(presence,))
        except errors.ServiceUnavailable:  # a disk that is full refuses no connection
            self._store.defer(presence)
        if admission.expires != math.inf:
            seconds, expired = admission.expires - now.timestamp(), errors.IotHubUnauthorized()
            self._expiries[link] = self._clock.call_later(seconds, self.drop, link.key, expired)
        log.info("%s connected", printable(link.key))
        self._feed.publish(Connected(admission, now))
        if replaced is not None:
            replaced.close(errors.ConnectionForcefullyClosedOnNewConnection())
        if self._faults.active and (fault := self._faults.match("slow-link", link.key)):
            link.slow(fault.rate)

    def disconnect(self, link: DeviceLink) -> None:
        """Remove a link whose connection ended; without effect if the hub itself closed it."""
        if self._links.get(link.key) is link:
            self._end(link, errors.DeviceNotOnline())

    def subscribed(self, link: DeviceLink) -> None:
        """Note that a device subscribed to direct methods or to cloud-to-device messages."""
        if signal := self._signals.get(link.key):
            signal.send()
        self._feed.publish(Subscribed(link))

    def note_activity(self, key: IdentityKey) -> None:
        """Note that an identity sent or received something, with or without a connection."""
        presence = self._store.get(Presence, key) or Presence(key)
        self._store.defer(replace(presence, last_activity=self._clock.now()))

    # --- for the hub

    def link(self, key: IdentityKey) -> DeviceLink | None:
        """Return the link of an identity, or None if it is not connected."""
        return self._links.get(key)

    def links(self) -> list[DeviceLink]:
        """Return every open link."""
        return list(self._links.values())

    def presence(self, key: IdentityKey) -> Presence:
        """Return the presence of an identity, even if it never connected."""
        return self._store.get(Presence, key) or Presence(key)

    def drop(self, key: IdentityKey, reason: errors.HubError, *, cut: bool = False) -> None:
        """Close the link of an identity, if it has one; or cut its connection."""
        link = self._links.get(key)
        if link is not None:
            self._end(link, reason)
            if cut:
                link.cut()
            else:
                link.close(reason)

    def stop(self) -> None:
        """Close every link, and fail the calls that wait for one: the hub is stopping."""
        self._stopped = True
        for key in list(self._links):
            self.drop(key, errors.ServiceUnavailable())
        for signal in self._signals.values():
            signal.send()

    def listener(self, key: IdentityKey, method: str) -> DeviceLink | None:
        """Return the link of an identity if it is subscribed to a direct method."""
        link = self._links.get(key)
        return link if link is not None and link.accepts_method(method) else None

    async def wait_for_listener(
        self, key: IdentityKey, method: str, timeout: float
    ) -> DeviceLink | None:
        """Return a link that is subscribed to a direct method, or None after `timeout` seconds.

        Raises:
            ServiceUnavailable: the hub is stopping.
        """

        def find() -> DeviceLink | None:
            if self._stopped:
                raise errors.ServiceUnavailable
            return self.listener(key, method)

        signal = self._signals.setdefault(key, Signal(self._clock))
        try:
            return await signal.wait_for(find, timeout)
        finally:
            if not signal.awaited:
                self._signals.pop(key, None)

    # --- faults

    def _begin_fault(self, change: FaultAdded) -> None:
        """Let a new fault of connections happen at once to those that are open."""
        kind = change.fault.kind
        # Of several slow links the oldest counts, also at a new connection.
        number = None if kind == "slow-link" else change.id
        if kind in (*_DROPS, "slow-link", "drop-link"):
            for link in filter(lambda link: change.fault.selects(link.key), self.links()):
                fault = self._faults.match(kind, link.key, number=number)
                if fault is not None and kind == "slow-link":
                    link.slow(fault.rate)
                elif fault is not None and kind == "drop-link":
                    link.detach(fault.link)

    def _drop_by_fault(self, change: FaultHit) -> None:
        """Close the connection that a fault hit, at once or at a request."""
        is_own = change.operation is None or change.operation in OF_DEVICES
        if (reason := _DROPS.get(change.fault.kind)) and change.key is not None and is_own:
            self.drop(change.key, reason(), cut=change.fault.how == CUT)

    def _end_fault(self, change: FaultEnded) -> None:
        if change.fault.kind == "slow-link":
            for link in filter(lambda link: change.fault.selects(link.key), self.links()):
                other = self._faults.match("slow-link", link.key)
                link.slow(other.rate if other else None)

    # ---

    def _takeovers(self, key: IdentityKey) -> int:
        number, last = self._replaced.get(key, (0, -math.inf))
        return number if self._clock.monotonic() - last < _TAKEOVER_MEMORY else 0

    def _count_takeover(self, key: IdentityKey) -> None:
        number = self._takeovers(key) + 1
        self._replaced[key] = number, self._clock.monotonic()
        if number == _TAKEOVERS_OF_TWO:
            log.warning("%s is connected from two programs. Stop one of them.", printable(key))

    def _end(self, link: DeviceLink, reason: errors.HubError) -> None:
        """Remove an open link, and publish that it ended."""
        now = self._clock.now()
        del self._links[link.key]
        presence = self._store.get(Presence, link.key)
        if presence is not None:  # None if its identity was deleted
            ended = replace(presence, connected=False, state_updated=now)
            self._store.defer(ended)
        if timer := self._expiries.pop(link, None):
            timer.cancel()
        if isinstance(reason, errors.DeviceNotOnline):  # by the device
            log.info("%s disconnected", printable(link.key))
        else:
            log.info("%s disconnected: %s", printable(link.key), printable(reason))
        self._feed.publish(Disconnected(link, reason, now))
