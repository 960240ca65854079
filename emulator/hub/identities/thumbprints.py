"""The thumbprints of the identities' certificates."""

from __future__ import annotations

from emulator.hub.core.store import Store
from emulator.hub.feed import Feed
from emulator.hub.identities import identity as identities
from emulator.hub.identities.identity import Identity, IdentityKey


class ThumbprintIndex:
    """Follows the certificates of the identities; several identities can share one.

    Attributes:
        thumbprints: a live view of the thumbprints of all identities, in lower case.
    """

    def __init__(self, store: Store, feed: Feed) -> None:
        self._keys: dict[str, set[IdentityKey]] = {}
        self.thumbprints = self._keys.keys()
        for identity in store.scan(Identity):
            self._add(identity)
        feed.subscribe(identities.IdentityCreated, lambda change: self._add(change.identity))
        feed.subscribe(identities.IdentityDeleted, lambda change: self._remove(change.identity))
        feed.subscribe(identities.IdentityChanged, self._update)

    def _update(self, change: identities.IdentityChanged) -> None:
        self._remove(change.before)
        self._add(change.identity)

    def _add(self, identity: Identity) -> None:
        for thumbprint in _thumbprints(identity):
            self._keys.setdefault(thumbprint, set()).add(identity.key)

    def _remove(self, identity: Identity) -> None:
        for thumbprint in _thumbprints(identity):
            keys = self._keys[thumbprint]
            keys.remove(identity.key)
            if not keys:
                del self._keys[thumbprint]


def _thumbprints(identity: Identity) -> set[str]:
    return {each.lower() for each in identity.authentication.thumbprints or () if each}
