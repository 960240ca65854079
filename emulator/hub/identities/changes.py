"""The changes of identities that the feed publishes."""

from __future__ import annotations

from datetime import datetime

from emulator.hub.feed import Change
from emulator.hub.identities.identity import Identity, IdentityKey


class _IdentityChange(Change, frozen=True):
    identity: Identity
    time: datetime

    @property
    def key(self) -> IdentityKey:
        """The key of the identity."""
        return self.identity.key


class IdentityCreated(_IdentityChange, frozen=True):
    """A device or module was created."""


class IdentityChanged(_IdentityChange, frozen=True):
    """A device or module was updated."""

    before: Identity


class IdentityDeleted(_IdentityChange, frozen=True):
    """A device or module was deleted, with its twin."""
