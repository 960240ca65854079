"""Which certificates identities name: found by thumbprint, without a walk over all identities."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from emulator.hub.identities.identity import Identity, IdentityKey


class ThumbprintIndex(Collection[str]):
    """The thumbprints that identities name, in lower case. Several identities may name the same."""

    def __init__(self) -> None:
        self._named_by: dict[str, set[IdentityKey]] = {}

    def __contains__(self, thumbprint: object) -> bool:
        return thumbprint in self._named_by

    def __iter__(self) -> Iterator[str]:
        return iter(self._named_by)

    def __len__(self) -> int:
        return len(self._named_by)

    def add(self, identity: Identity) -> None:
        """Note the thumbprints of an identity."""
        for thumbprint in _thumbprints(identity):
            self._named_by.setdefault(thumbprint, set()).add(identity.key)

    def remove(self, identity: Identity) -> None:
        """Forget the thumbprints that were noted of an identity, but for those that others name."""
        for thumbprint in _thumbprints(identity):
            keys = self._named_by[thumbprint]
            keys.remove(identity.key)
            if not keys:
                del self._named_by[thumbprint]


def _thumbprints(identity: Identity) -> set[str]:
    return {each.lower() for each in identity.authentication.thumbprints or () if each}
