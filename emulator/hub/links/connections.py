"""Who is connected: the live links to devices and modules, and when each was last heard of."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from emulator.hub.core.errors import HubError
from emulator.hub.core.times import NEVER
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.commands import Command


class Admission(Struct, frozen=True):
    """What the hub found when a device or module proved who it is.

    Args:
        expires: when the proof runs out, in seconds since the epoch; infinity for a certificate.
        generation_id: of its identity.
        auth_method: JSON text of how it was proved, as the hub stamps it on messages.
        model_id: the model that it says it implements, "" if none.
    """

    key: IdentityKey
    expires: float
    generation_id: str
    auth_method: str
    model_id: str = ""


class DeviceLink(Protocol):
    """One connected device or module, as the hub talks to it; a head implements it.

    None of its methods waits: a link that can't pass on what it is given closes itself.
    """

    @property
    def key(self) -> IdentityKey:
        """Whose link it is."""

    def accepts_method(self, name: str) -> bool:
        """Say whether the device listens for the direct method `name`."""

    @property
    def accepts_commands(self) -> bool:
        """Whether the device listens for cloud-to-device messages."""

    @property
    def unacknowledged(self) -> Collection[str]:
        """The lock tokens of the cloud-to-device messages that the device has not taken yet."""

    def deliver(self, command: Command) -> None:
        """Hand a cloud-to-device message to the device; the hub is told when it is taken."""

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        """Hand a direct method to the device; `payload` is JSON text."""

    def notify_desired(self, patch: bytes, version: int) -> None:
        """Hand a change of the desired properties to the device; `patch` is JSON text."""

    def close(self, reason: HubError) -> None:
        """Drop the connection; the hub has already forgotten the link."""


class Presence(Struct):
    """When an identity was last heard of."""

    connected: bool = False
    state_updated: datetime = NEVER
    last_activity: datetime = NEVER


class Connections:
    """The live link of each identity, at most one."""

    def __init__(self) -> None:
        self._links: dict[IdentityKey, DeviceLink] = {}
        self._presence: dict[IdentityKey, Presence] = {}
        self._waiting: dict[IdentityKey, set[asyncio.Future[None]]] = {}

    def link(self, key: IdentityKey) -> DeviceLink | None:
        """Find the link of an identity; None if it is not connected."""
        return self._links.get(key)

    def links(self) -> list[DeviceLink]:
        """List every live link."""
        return list(self._links.values())

    def presence(self, key: IdentityKey) -> Presence:
        """Tell an identity's presence; one that never connected has a presence as well."""
        return self._presence.get(key, Presence())

    def add(self, link: DeviceLink, now: datetime) -> DeviceLink | None:
        """Put a link in place, and give the one that it replaces."""
        replaced = self._links.get(link.key)
        self._links[link.key] = link
        presence = self._presence.setdefault(link.key, Presence())
        presence.connected = True
        presence.state_updated = presence.last_activity = now
        return replaced

    def remove(self, link: DeviceLink, now: datetime) -> bool:
        """Forget a link; False if another had already taken its place."""
        if self._links.get(link.key) is not link:
            return False
        del self._links[link.key]
        presence = self._presence[link.key]
        presence.connected = False
        presence.state_updated = now
        return True

    def forget(self, key: IdentityKey) -> None:
        """Forget the presence of an identity that was deleted."""
        self._presence.pop(key, None)

    def is_known(self, key: IdentityKey) -> bool:
        """Whether an identity was ever heard of, and not deleted since."""
        return key in self._presence

    def heard_of(self, key: IdentityKey, now: datetime) -> None:
        """Note that something was sent or received, over a connection or without one."""
        presence = self._presence.get(key)
        if presence is None:
            presence = self._presence[key] = Presence()
        presence.last_activity = now

    def listener(self, key: IdentityKey, method: str) -> DeviceLink | None:
        """Find the link of an identity, if it listens for this direct method."""
        link = self._links.get(key)
        return link if link is not None and link.accepts_method(method) else None

    async def wait_for_listener(
        self, key: IdentityKey, method: str, timeout: float
    ) -> DeviceLink | None:
        """Wait up to `timeout` seconds for a link that listens for this direct method."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (link := self.listener(key, method)) is None:
            waiter = loop.create_future()
            self._waiting.setdefault(key, set()).add(waiter)
            try:
                await asyncio.wait_for(waiter, deadline - loop.time())
            except TimeoutError:
                return None
            finally:
                self._stop_waiting(key, waiter)
        return link

    def listens(self, key: IdentityKey) -> None:
        """Wake those who wait for this identity to listen for direct methods."""
        for waiter in self._waiting.get(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _stop_waiting(self, key: IdentityKey, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting[key]
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[key]
