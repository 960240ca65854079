"""Who is connected: the live link of each identity, and when each identity was last active."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import datetime

from msgspec import Struct

from emulator.hub.core import errors
from emulator.hub.core.clock import Clock, Timer
from emulator.hub.core.times import NEVER
from emulator.hub.feed import Feed
from emulator.hub.identities.changes import IdentityDeleted
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.changes import Connected, Disconnected, Subscribed
from emulator.hub.links.link import Admission, DeviceLink

log = logging.getLogger(__name__)


class Presence(Struct):
    """Whether an identity is connected, and when it was last active."""

    connected: bool = False
    state_updated: datetime = NEVER
    last_activity: datetime = NEVER


class Links:
    """The live link of each identity, at most one."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self._links: dict[IdentityKey, DeviceLink] = {}
        self._expiries: dict[DeviceLink, Timer] = {}
        self._presence: dict[IdentityKey, Presence] = {}
        self._waiting: dict[IdentityKey, set[asyncio.Future[None]]] = {}
        feed.subscribe(IdentityDeleted, lambda change: self._presence.pop(change.key, None))

    # --- what heads call

    def connect(self, link: DeviceLink, admission: Admission) -> None:
        """Register a link; an older link of the same identity is closed.

        The link is closed when its credentials expire.
        """
        replaced = self._links.get(link.key)
        if replaced is not None:
            self._end(replaced, errors.ConnectionForcefullyClosedOnNewConnection())
        now = self._clock.now()
        self._links[link.key] = link
        presence = self._presence.setdefault(link.key, Presence())
        presence.connected = True
        presence.state_updated = presence.last_activity = now
        if admission.expires != math.inf:
            self._expiries[link] = self._clock.call_later(
                admission.expires - now.timestamp(),
                self.drop,
                link.key,
                errors.IotHubUnauthorized(),
            )
        log.info("%s connected", link.key)
        self._feed.publish(Connected(admission, now))
        if replaced is not None:
            replaced.close(errors.ConnectionForcefullyClosedOnNewConnection())

    def disconnect(self, link: DeviceLink) -> None:
        """Forget a link whose connection has ended; without effect if the hub itself closed it."""
        if self._links.get(link.key) is link:
            self._end(link, errors.DeviceNotOnline())

    def subscribed(self, link: DeviceLink) -> None:
        """Note that a device has subscribed to direct methods, or to messages."""
        self._wake(link.key)
        self._feed.publish(Subscribed(link))

    def note_activity(self, key: IdentityKey, now: datetime | None = None) -> None:
        """Note that an identity sent or received something, over a connection or without one."""
        presence = self._presence.get(key)
        if presence is None:
            presence = self._presence[key] = Presence()
        presence.last_activity = now or self._clock.now()

    # --- what the hub calls

    def link(self, key: IdentityKey) -> DeviceLink | None:
        """Return the link of an identity, or None if it is not connected."""
        return self._links.get(key)

    def links(self) -> list[DeviceLink]:
        """Return every live link."""
        return list(self._links.values())

    def presence(self, key: IdentityKey) -> Presence:
        """Return the presence of an identity, also of one that never connected."""
        return self._presence.get(key) or Presence()

    def knows(self, key: IdentityKey) -> bool:
        """Return whether an identity was active before, and not deleted since."""
        return key in self._presence

    def drop(self, key: IdentityKey, reason: errors.HubError) -> None:
        """Close the link of an identity, if it has one."""
        link = self._links.get(key)
        if link is not None:
            self._end(link, reason)
            link.close(reason)

    def drop_all(self, reason: errors.HubError) -> None:
        """Close every link."""
        for key in list(self._links):
            self.drop(key, reason)

    def listener(self, key: IdentityKey, method: str) -> DeviceLink | None:
        """Return the link of an identity, if it is subscribed to this direct method."""
        link = self._links.get(key)
        return link if link is not None and link.accepts_method(method) else None

    async def wait_for_listener(
        self, key: IdentityKey, method: str, timeout: float
    ) -> DeviceLink | None:
        """Wait for a link that is subscribed to this direct method, for `timeout` seconds."""
        deadline = self._clock.monotonic() + timeout
        while (link := self.listener(key, method)) is None:
            remaining = deadline - self._clock.monotonic()
            if remaining <= 0:
                return None
            await self._wait(key, remaining)
        return link

    async def _wait(self, key: IdentityKey, timeout: float) -> None:
        """Wait until the identity subscribes to something, for `timeout` seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(key, set())
        waiters.add(waiter)
        timer = self._clock.call_later(timeout, _set_done, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            waiters.discard(waiter)
            if not waiters and self._waiting.get(key) is waiters:
                del self._waiting[key]

    def _wake(self, key: IdentityKey) -> None:
        for waiter in self._waiting.get(key, ()):
            _set_done(waiter)

    def _end(self, link: DeviceLink, reason: errors.HubError) -> None:
        """Forget a live link, and publish that it has ended."""
        now = self._clock.now()
        del self._links[link.key]
        presence = self._presence[link.key]
        presence.connected = False
        presence.state_updated = now
        if timer := self._expiries.pop(link, None):
            timer.cancel()
        log.info("%s disconnected: %s", link.key, reason)
        self._feed.publish(Disconnected(link, reason, now))


def _set_done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
