"""The service over twins: services and devices read and write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import PreconditionFailed, SystemModuleModifyUnauthorizedAccess
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.store import Store
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.links import Links
from emulator.hub.registry import documents
from emulator.hub.registry.rows import Rows, find_twin
from emulator.hub.twins import writes
from emulator.hub.twins.changes import TwinChanged
from emulator.hub.twins.twin import Twin


class Twins:
    """The twins of a hub."""

    def __init__(self, store: Store, rows: Rows, links: Links, feed: Feed, clock: Clock) -> None:
        self._store = store
        self._rows = rows
        self._links = links
        self._feed = feed
        self._clock = clock

    # --- for services

    def get(self, key: IdentityKey) -> JsonObject:
        """Return a twin as a service sees it.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        return documents.twin(self._rows.row(key))

    def patch(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Merge tags and desired properties into a twin, and notify the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
            SystemModuleModifyUnauthorizedAccess: it is the hub's own module (seen on a real hub).
        """
        return self._write(key, if_match, writes.patch, body)

    def replace(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Replace a twin's tags and desired properties, and notify the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
            SystemModuleModifyUnauthorizedAccess: it is the hub's own module (seen on a real hub).
        """
        return self._write(key, if_match, writes.replace, body)

    def write(self, key: IdentityKey, body: object) -> None:
        """Merge tags and desired properties into any twin for the hub itself.

        Raises:
            DeviceNotFound, ArgumentInvalid
        """
        twin = self._twin(key)
        change = writes.patch(twin, body, self._clock.now())
        if change.twin is not twin:
            self._commit(change)

    # --- for the device itself

    def read_own(self, key: IdentityKey) -> JsonObject:
        """Return a twin as its device sees it.

        Raises:
            DeviceNotFound
        """
        return self._twin(key).device_view()

    def report(self, key: IdentityKey, body: object, expected_version: int | None) -> int:
        """Merge a device's patch into its reported properties, and return their new version.

        Raises:
            DeviceNotFound, ArgumentInvalid
            PreconditionFailed: the reported properties are not at `expected_version`.
        """
        change = writes.report(self._twin(key), body, self._clock.now(), expected_version)
        self._commit(change)
        return change.twin.reported.version

    # ---

    def notify(self, change: TwinChanged) -> None:
        """Send new desired properties to the device, if it is connected."""
        link = self._links.link(change.key)
        if link is not None and change.desired is not None:
            link.notify_desired(dumps(change.desired), change.twin.desired.version)

    def _write(
        self,
        key: IdentityKey,
        if_match: IfMatch,
        write: Callable[[Twin, object, datetime], TwinChanged],
        body: object,
    ) -> JsonObject:
        twin = self._twin(key)
        if key.is_system_module:
            raise SystemModuleModifyUnauthorizedAccess
        if not if_match.allows(twin.etag):
            raise PreconditionFailed(f"ETag mismatch for device ID '{key.device_id}'")
        change = write(twin, body, self._clock.now())
        if change.twin is twin:
            return self.get(key)
        self._store.commit(put=(change.twin,))
        document = self.get(key)  # before anything that a subscriber to the change writes
        self._publish(change)
        return document

    def _commit(self, change: TwinChanged) -> None:
        self._store.commit(put=(change.twin,))
        self._publish(change)

    def _publish(self, change: TwinChanged) -> None:
        self.notify(change)
        self._feed.publish(change)

    def _twin(self, key: IdentityKey) -> Twin:
        return find_twin(self._store, key)
