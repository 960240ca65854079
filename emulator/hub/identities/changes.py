"""What the feed publishes about identities."""

from __future__ import annotations

from datetime import datetime

from emulator.hub.feed import Change
from emulator.hub.identities.identity import Identity, IdentityKey


class IdentityCreated(Change, frozen=True):
    """A device or module was created."""

    identity: Identity
    time: datetime

    @property
    def key(self) -> IdentityKey:
        """Its key."""
        return self.identity.key


class IdentityChanged(Change, frozen=True):
    """A device or module was updated."""

    before: Identity
    identity: Identity
    time: datetime

    @property
    def key(self) -> IdentityKey:
        """Its key."""
        return self.identity.key


class IdentityDeleted(Change, frozen=True):
    """A device or module was deleted, with its twin."""

    identity: Identity
    time: datetime

    @property
    def key(self) -> IdentityKey:
        """Its key."""
        return self.identity.key
