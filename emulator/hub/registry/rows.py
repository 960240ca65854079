"""The rows that services see and query: identities with their twins and presence."""

from __future__ import annotations

from collections.abc import Iterator

from emulator.hub.core.errors import DeviceNotFound
from emulator.hub.core.store import R, Store
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.links import Links
from emulator.hub.messages.cloud_to_device import CloudToDevice
from emulator.hub.registry.documents import TwinRow
from emulator.hub.twins.twin import Twin


class Rows:
    """Returns rows, and changes nothing."""

    def __init__(self, store: Store, links: Links, cloud_to_device: CloudToDevice) -> None:
        self._store = store
        self._links = links
        self._cloud_to_device = cloud_to_device

    def row(self, key: IdentityKey) -> TwinRow:
        """Return the row of a device or module.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        return self._row(find(self._store, Identity, key))

    def devices(self) -> Iterator[TwinRow]:
        """Return the rows of devices; the oldest device is first."""
        return map(self._row, device_identities(self._store))

    def modules(self) -> Iterator[TwinRow]:
        """Return the rows of modules; the modules of the oldest device are first."""
        return (self._row(each) for each in self._identities() if each.key.module_id is not None)

    def identity_keys(self) -> list[IdentityKey]:
        """Return the keys of all devices and modules; each device is before its modules."""
        return [identity.key for identity in self._identities()]

    def _identities(self) -> Iterator[Identity]:
        for device in device_identities(self._store):
            yield from self._store.scan(Identity, (device.key.device_id,))

    def _row(self, identity: Identity) -> TwinRow:
        key = identity.key
        pending = self._cloud_to_device.pending(key.device_id) if key.module_id is None else 0
        return TwinRow(identity, find(self._store, Twin, key), self._links.presence(key), pending)


def find(store: Store, kind: type[R], key: IdentityKey) -> R:
    """Return the identity, the twin or another record of a key.

    Raises:
        DeviceNotFound: also for a module, as on a twin's route (seen on a real hub).
    """
    record = store.get(kind, key)
    if record is None:
        raise DeviceNotFound(key.device_id)
    return record


def device_identities(store: Store) -> Iterator[Identity]:
    """Return the identities of devices; the oldest device is first."""
    return (each for each in store.scan(Identity) if each.key.module_id is None)
