"""The rows that services see and query: identities with their twins and presence."""

from __future__ import annotations

from collections.abc import Iterator

from emulator.hub.core.errors import DeviceNotFound
from emulator.hub.core.places import Place, Places
from emulator.hub.core.store import R, Store
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import Identity, IdentityCreated, IdentityDeleted, IdentityKey
from emulator.hub.links.links import Links
from emulator.hub.messages.cloud_to_device import CloudToDevice
from emulator.hub.registry.documents import TwinRow
from emulator.hub.twins.twin import Twin


class Rows:
    """Returns rows, and changes nothing.

    The rows of devices are in the order of their creation, and those of modules too, within the
    order of their devices. A scan can continue later at a place. It sees each row as it is when it
    reaches it.
    """

    def __init__(
        self, store: Store, links: Links, cloud_to_device: CloudToDevice, feed: Feed
    ) -> None:
        self._store = store
        self._links = links
        self._cloud_to_device = cloud_to_device
        self._devices, self._modules = Places(), Places()
        self._place_of: dict[IdentityKey, Place] = {}
        for identity in sorted(store.scan(Identity), key=lambda each: each.key.module_id or ""):
            self._add(identity)
        feed.subscribe(IdentityCreated, lambda change: self._add(change.identity))
        feed.subscribe(IdentityDeleted, self._remove)

    def row(self, key: IdentityKey) -> TwinRow:
        """Return the row of a device or module.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        return self._row(find(self._store, Identity, key))

    def devices(self, after: Place = ()) -> Iterator[tuple[Place, TwinRow]]:
        """Return the rows of devices after a place, each with its place."""
        return self._rows(self._devices, after)

    def modules(self, after: Place = ()) -> Iterator[tuple[Place, TwinRow]]:
        """Return the rows of modules after a place, each with its place."""
        return self._rows(self._modules, after)

    def families(self) -> Iterator[list[TwinRow]]:
        """Return the rows of each device and of its modules; the device is first."""
        for place in self._devices.after():
            yield [self._row(each) for each in self._store.scan(Identity, (place[1],))]

    @property
    def device_count(self) -> int:
        """The number of devices."""
        return len(self._devices)

    def _rows(self, places: Places, after: Place) -> Iterator[tuple[Place, TwinRow]]:
        get, module = self._store.get, places is self._modules
        for place in places.after(after):
            identity = get(Identity, (place[1], place[3] if module else None))
            if identity is not None:  # else it was deleted, and the feed has not told yet
                yield place, self._row(identity)

    def _row(self, identity: Identity) -> TwinRow:
        key = identity.key
        pending = self._cloud_to_device.pending(key.device_id) if key.module_id is None else 0
        return TwinRow(identity, find(self._store, Twin, key), self._links.presence(key), pending)

    def _add(self, identity: Identity) -> None:
        # A generation id is a time; identities of the same time are ordered by their ids.
        device_id, module_id = identity.key
        place: Place = (identity.generation_id.rjust(20, "0"), module_id or device_id)
        if module_id is not None:
            place = (*self._place_of[IdentityKey(device_id)], *place)
        self._place_of[identity.key] = place
        (self._devices if module_id is None else self._modules).add(place)

    def _remove(self, change: IdentityDeleted) -> None:
        place = self._place_of.pop(change.key)
        (self._devices if change.key.module_id is None else self._modules).remove(place)


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
