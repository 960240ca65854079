"""The twins of a hub: read by services and devices, written by both.

What a change means for a live connection (a device is told of its desired properties) is passed on
to that connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from emulator.hub.core.errors import (
    DeviceNotFound,
    PreconditionFailed,
    SystemModuleModifyUnauthorizedAccess,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.store import Store
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.connections import Connections
from emulator.hub.messages.commands import CommandQueue
from emulator.hub.registry import documents
from emulator.hub.registry.documents import TwinRow
from emulator.hub.twins import twin as twins
from emulator.hub.twins.twin import Twin


class TwinRegistry:
    """The half of the registry that has to do with twins."""

    def __init__(
        self, store: Store, connections: Connections, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._connections = connections
        self._clock = clock
        self._when_changed: list[Callable[[IdentityKey], None]] = []

    def when_changed(self, tell: Callable[[IdentityKey], None]) -> None:
        """Have `tell` called for each identity that is new, or whose twin has new tags or reported
        properties, after it is.
        """
        self._when_changed.append(tell)

    def _changed(self, key: IdentityKey) -> None:
        for tell in self._when_changed:
            tell(key)

    def identity(self, key: IdentityKey) -> Identity:
        """Find an identity.

        Raises:
            DeviceNotFound: also for a module, as a twin's route has it (seen on a real hub).
        """
        identity = self._store.identity(key)
        if identity is None:
            raise DeviceNotFound(key.device_id)
        return identity

    # --- as services see them

    def get_twin(self, key: IdentityKey) -> JsonObject:
        """Read a twin as a service sees it.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        return documents.twin(self.row(key))

    def row(self, key: IdentityKey) -> TwinRow:
        """Read a twin with what else is known of its identity.

        Raises:
            DeviceNotFound: also for a module that is missing.
        """
        return self._row(self.identity(key))

    def device_rows(self) -> Iterator[TwinRow]:
        """Go through the twins of devices, the oldest device first."""
        return (self._row(device) for device in self._store.devices())

    def module_rows(self) -> Iterator[TwinRow]:
        """Go through the twins of modules, those of the oldest device first."""
        for device in self._store.devices():
            for key in self._store.keys_of(device.key.device_id):
                if key.module_id is not None:
                    yield self.row(key)

    def _row(self, identity: Identity) -> TwinRow:
        key = identity.key
        presence, pending = self._connections.presence(key), self._pending(key)
        return TwinRow(identity, self._twin(key), presence, pending)

    def _pending(self, key: IdentityKey) -> int:
        queue: CommandQueue = self._store.command_queue(key.device_id)
        return queue.pending(self._clock()) if key.module_id is None and queue.commands else 0

    def patch_twin(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Merge tags and desired properties into a twin for a service, and tell the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
            SystemModuleModifyUnauthorizedAccess: it is the hub's own module (seen on a real hub).
        """
        return self._change_twin(key, if_match, twins.patch, body)

    def write_twin(self, key: IdentityKey, body: object) -> None:
        """Merge tags and desired properties into any twin for the hub itself, and tell the device.

        Raises:
            DeviceNotFound, ArgumentInvalid
        """
        self._write(twins.patch(self._twin(key), body, self._clock()))

    def replace_twin(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Replace a twin's tags and desired properties for a service, and tell the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
            SystemModuleModifyUnauthorizedAccess: it is the hub's own module (seen on a real hub).
        """
        return self._change_twin(key, if_match, twins.replace, body)

    def _change_twin(
        self,
        key: IdentityKey,
        if_match: IfMatch,
        change_twin: Callable[[Twin, object, datetime], twins.Change],
        body: object,
    ) -> JsonObject:
        twin = self._twin(key)
        if key.is_system_module:
            raise SystemModuleModifyUnauthorizedAccess
        if not if_match.allows(twin.etag):
            raise PreconditionFailed(f"ETag mismatch for device ID '{key.device_id}'")
        change = change_twin(twin, body, self._clock())
        self._write(change)
        document = self.get_twin(key)  # before anything that its new tags may set off
        if change.twin.tags is not twin.tags:
            self._changed(key)
        return document

    def _write(self, change: twins.Change) -> None:
        self._store.commit(put=(change.twin,))
        self._notify(change)

    def _notify(self, change: twins.Change) -> None:
        """Tell a device of its new desired properties, if it is connected."""
        link = self._connections.link(change.twin.key)
        if link is not None and change.desired is not None:
            link.notify_desired(dumps(change.desired), change.twin.desired.version)

    # --- as their devices see them

    def read_twin(self, key: IdentityKey) -> JsonObject:
        """Read a twin as its device sees it.

        Raises:
            DeviceNotFound
        """
        return self._twin(key).device_view()

    def report(self, key: IdentityKey, body: object, expected_version: int | None) -> int:
        """Merge a device's patch into its reported properties; gives their new version.

        Raises:
            DeviceNotFound, ArgumentInvalid
            PreconditionFailed: the reported properties are not at `expected_version`.
        """
        twin = twins.report(self._twin(key), body, self._clock(), expected_version)
        self._store.commit(put=(twin,))
        self._changed(key)
        return twin.reported.version

    def _twin(self, key: IdentityKey) -> Twin:
        twin = self._store.twin(key)
        if twin is None:
            raise DeviceNotFound(key.device_id)
        return twin
