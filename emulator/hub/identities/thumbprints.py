"""The thumbprints of the identities' certificates."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from emulator.hub.core.store import Store
from emulator.hub.feed import Feed
from emulator.hub.identities import identity as identities
from emulator.hub.identities.identity import Identity, IdentityKey


class ThumbprintIndex(Collection[str]):
    """The thumbprints of all identities, in lower case; several identities can share one."""

    def __init__(self, store: Store, feed: Feed) -> None:
        self._keys: dict[str, set[IdentityKey]] = {}
        for identity in store.scan(Identity):
            self._add(identity)
        feed.subscribe(identities.IdentityCreated, lambda change: self._add(change.identity))
        feed.subscribe(identities.IdentityDeleted, lambda change: self._remove(change.identity))
        feed.subscribe(identities.IdentityChanged, self._update)

    def __contains__(self, thumbprint: object) -> bool:
        return thumbprint in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

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
