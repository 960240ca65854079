"""Where the hub's state is kept.

`Store` is all that the hub knows of it. A change is one `commit`: it happens whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from emulator.hub.identities import Identity, IdentityKey
from emulator.hub.twins import Twin

# What is stored: frozen, so a reader can hold on to one while a writer replaces it.
Record = Identity | Twin


class Store(Protocol):
    """Identities and their twins."""

    def identity(self, key: IdentityKey) -> Identity | None:
        """Read an identity; None if it is not registered."""

    def twin(self, key: IdentityKey) -> Twin | None:
        """Read a twin; None if its identity is not registered."""

    def devices(self) -> Iterator[Identity]:
        """Go through the device identities, oldest first."""

    def keys_of(self, device_id: str) -> Sequence[IdentityKey]:
        """List a device's own key and those of its modules; empty if it is not registered."""

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[IdentityKey] = ()) -> None:
        """Write records and delete identities with their twins, all of it or nothing."""


class MemoryStore:
    """A store that is gone with the process."""

    def __init__(self) -> None:
        # By device id, then by module id: a device and what belongs to it are found in one step.
        self._identities: dict[str, dict[str | None, Identity]] = {}
        self._twins: dict[IdentityKey, Twin] = {}

    def identity(self, key: IdentityKey) -> Identity | None:
        """See `Store.identity`."""
        return self._identities.get(key.device_id, {}).get(key.module_id)

    def twin(self, key: IdentityKey) -> Twin | None:
        """See `Store.twin`."""
        return self._twins.get(key)

    def devices(self) -> Iterator[Identity]:
        """See `Store.devices`."""
        for family in self._identities.values():
            if None in family:
                yield family[None]

    def keys_of(self, device_id: str) -> Sequence[IdentityKey]:
        """See `Store.keys_of`."""
        return [IdentityKey(device_id, module) for module in self._identities.get(device_id, ())]

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[IdentityKey] = ()) -> None:
        """See `Store.commit`; nothing here can fail halfway."""
        for record in put:
            if isinstance(record, Twin):
                self._twins[record.key] = record
            else:
                device_id, module_id = record.key
                self._identities.setdefault(device_id, {})[module_id] = record
        for key in delete:
            self._twins.pop(key, None)
            family = self._identities.get(key.device_id, {})
            family.pop(key.module_id, None)
            if not family:
                self._identities.pop(key.device_id, None)
