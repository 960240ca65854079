"""The service over twins, for services and for devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import PreconditionFailed, SystemModuleModifyUnauthorizedAccess
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.store import Record, Store
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.links import Links
from emulator.hub.registry import documents
from emulator.hub.registry.rows import Rows, find
from emulator.hub.twins import writes
from emulator.hub.twins.twin import Twin, TwinChanged

_Write = Callable[[Twin, object, datetime], TwinChanged]


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
        """Return a twin for a service.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        return documents.twin(self._rows.row(key))

    def patch(
        self, key: IdentityKey, body: object, if_match: IfMatch, also: Sequence[Record] = ()
    ) -> JsonObject:
        """Merge tags and desired properties into a twin, and notify the device.

        Args:
            key: the device or module.
            body: the patch.
            if_match: the precondition.
            also: records that are written in the same commit.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid, DeviceModelMaxPropertiesExceeded
            SystemModuleModifyUnauthorizedAccess: the module is the hub's own (seen on a real hub).
        """
        return self._write(key, if_match, writes.patch, body, also)

    def replace(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Replace a twin's tags and desired properties, and notify the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid, DeviceModelMaxPropertiesExceeded
            SystemModuleModifyUnauthorizedAccess: the module is the hub's own (seen on a real hub).
        """
        return self._write(key, if_match, writes.replace, body)

    def write(self, key: IdentityKey, body: object) -> None:
        """Merge tags and desired properties into a twin, as the hub itself.

        Raises:
            DeviceNotFound, ArgumentInvalid, DeviceModelMaxPropertiesExceeded
        """
        twin = find(self._store, Twin, key)
        change = writes.patch(twin, body, self._clock.now())
        if change.twin is not twin:
            self._commit(change)

    # --- for devices

    def read_own(self, key: IdentityKey) -> JsonObject:
        """Return a twin for its device.

        Raises:
            DeviceNotFound
        """
        return find(self._store, Twin, key).device_view()

    def report(self, key: IdentityKey, body: object, expected_version: int | None) -> int:
        """Merge a device's patch into its reported properties, and return their new version.

        Raises:
            DeviceNotFound, ArgumentInvalid, DeviceModelMaxPropertiesExceeded
            PreconditionFailed: the version of the reported properties is not `expected_version`.
        """
        twin = find(self._store, Twin, key)
        change = writes.report(twin, body, self._clock.now(), expected_version)
        self._commit(change)
        return change.twin.reported.version

    # --- for the hub

    def publish(self, change: TwinChanged) -> None:
        """Publish a committed change, and send new desired properties to a connected device."""
        link = self._links.link(change.key)
        if link is not None and change.desired is not None:
            link.notify_desired(dumps(change.desired), change.twin.desired.version)
        self._feed.publish(change)

    def _write(
        self,
        key: IdentityKey,
        if_match: IfMatch,
        write: _Write,
        body: object,
        also: Sequence[Record] = (),
    ) -> JsonObject:
        twin = find(self._store, Twin, key)
        if key.is_system_module:
            raise SystemModuleModifyUnauthorizedAccess
        if not if_match.allows(twin.etag):
            raise PreconditionFailed(f"ETag mismatch for device ID '{key.device_id}'")
        change = write(twin, body, self._clock.now())
        if change.twin is twin:
            if also:
                self._store.commit(put=also)
            return self.get(key)
        self._store.commit(put=(change.twin, *also))
        document = self.get(key)  # before a subscriber writes
        self.publish(change)
        return document

    def _commit(self, change: TwinChanged) -> None:
        self._store.commit(put=(change.twin,))
        self.publish(change)
