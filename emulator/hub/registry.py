"""The identity registry and the twins: what services create, read, change and delete.

Identities and their twins live and die together, so they are kept by one class. What a change means
for a live connection (a device is told of its desired properties, a disabled one is dropped) is
passed on to that connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from emulator.hub import documents, identities, limits, twins
from emulator.hub.cloud_to_device import CommandQueue
from emulator.hub.connections import Connections
from emulator.hub.errors import (
    DeviceAlreadyExists,
    DeviceDisabled,
    DeviceNotFound,
    HubError,
    IotHubUnauthorizedAccess,
    ModuleAlreadyExistsOnDevice,
    ModuleNotFound,
    PreconditionFailed,
    TooManyDevices,
    TooManyModulesOnDevice,
)
from emulator.hub.etags import IfMatch
from emulator.hub.identities import Identity, IdentityKey
from emulator.hub.jsontext import JsonObject, dumps
from emulator.hub.store import Store
from emulator.hub.thumbprints import ThumbprintIndex
from emulator.hub.twins import Twin


class Registry:
    """The identities of a hub, and their twins.

    Args:
        drop: ends the connection of an identity, if it has one, for a reason.
    """

    def __init__(
        self,
        store: Store,
        connections: Connections,
        clock: Callable[[], datetime],
        drop: Callable[[IdentityKey, HubError], None],
    ) -> None:
        self._store = store
        self._connections = connections
        self._clock = clock
        self._drop = drop
        self._device_count = sum(1 for _ in store.devices())
        self._when_deleted: list[Callable[[IdentityKey], None]] = []
        self.thumbprints = ThumbprintIndex()
        """Of the certificates that identities name at the time."""
        for device in store.devices():
            for key in store.keys_of(device.key.device_id):
                self.thumbprints.add(self.identity(key))

    def when_deleted(self, tell: Callable[[IdentityKey], None]) -> None:
        """Have `tell` called for each identity that is deleted, after it is."""
        self._when_deleted.append(tell)

    # --- devices

    def get_device(self, device_id: str) -> JsonObject:
        """Read a device identity.

        Raises:
            DeviceNotFound
        """
        return self._document(self.identity(IdentityKey(device_id)))

    def put_device(self, device_id: str, body: object, if_match: IfMatch) -> JsonObject:
        """Create a device, or with `If-Match` update it.

        Raises:
            DeviceAlreadyExists, DeviceNotFound, PreconditionFailed, ArgumentInvalid, TooManyDevices
        """
        key = IdentityKey(device_id)
        if not if_match.absent:
            return self._update(key, body, if_match)
        if self._store.identity(key) is not None:
            raise DeviceAlreadyExists(f"A device with ID '{device_id}' is already registered.")
        if self._device_count >= limits.DEVICES_PER_HUB:
            raise TooManyDevices
        document = self._create(key, body)
        self._device_count += 1
        return document

    def delete_device(self, device_id: str, if_match: IfMatch) -> None:
        """Delete a device, with its modules, their twins and its messages; it is dropped.

        Raises:
            DeviceNotFound
            PreconditionFailed: the etag is stale, or there is none.
        """
        self._check_delete(self.identity(IdentityKey(device_id)), if_match)
        self._delete(self._store.keys_of(device_id))
        self._device_count -= 1

    def list_devices(self, top: int = limits.LIST_DEVICES) -> list[JsonObject]:
        """List device identities, oldest first: `top` of them, 1 to 1,000.

        Anything outside that range counts as 1,000 (seen on a real hub).
        """
        count = top if 1 <= top <= limits.LIST_DEVICES else limits.LIST_DEVICES
        return [
            self._document(identity)
            for identity, _ in zip(self._store.devices(), range(count), strict=False)
        ]

    # --- modules

    def get_module(self, key: IdentityKey) -> JsonObject:
        """Read a module identity.

        Raises:
            ModuleNotFound
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(key)
        return self._document(self._module(key))

    def put_module(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Create a module, or with `If-Match` update it.

        Raises:
            ModuleAlreadyExistsOnDevice, ModuleNotFound, PreconditionFailed, ArgumentInvalid
            TooManyModulesOnDevice: 20 are allowed.
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(key)
        if not if_match.absent:
            self._module(key)
            return self._update(key, body, if_match)
        if self._store.identity(key) is not None:
            raise ModuleAlreadyExistsOnDevice(
                f"Device {key.device_id} already contains Module {key.module_id}."
            )
        if len(self._store.keys_of(key.device_id)) > limits.MODULES_PER_DEVICE:
            raise TooManyModulesOnDevice
        return self._create(key, body)

    def delete_module(self, key: IdentityKey, if_match: IfMatch) -> None:
        """Delete a module with its twin; it is dropped.

        Raises:
            ModuleNotFound
            PreconditionFailed: the etag is stale, or there is none.
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(key)
        self._check_delete(self._module(key), if_match)
        self._delete([key])

    def list_modules(self, device_id: str) -> list[JsonObject]:
        """List the module identities of a device.

        Raises:
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(IdentityKey(device_id))
        keys = self._store.keys_of(device_id)
        return [self._document(self.identity(key)) for key in keys if key.module_id is not None]

    def _module(self, key: IdentityKey) -> Identity:
        identity = self._store.identity(key)
        if identity is None:
            raise ModuleNotFound(f"{key.device_id}/{key.module_id}")
        return identity

    def _check_device_of(self, key: IdentityKey) -> None:
        # A real hub answers so, and not with 404, to any call on module identities (seen there).
        device = self._store.identity(IdentityKey(key.device_id))
        if device is None or not device.enabled:
            raise IotHubUnauthorizedAccess("Unauthorized access")

    # --- both

    def identity(self, key: IdentityKey) -> Identity:
        """Find an identity.

        Raises:
            DeviceNotFound: also for a module, as a twin's route has it (seen on a real hub).
        """
        identity = self._store.identity(key)
        if identity is None:
            raise DeviceNotFound(key.device_id)
        return identity

    def note_model(self, key: IdentityKey, model_id: str) -> None:
        """Show in the twin which model a device says it implements (IoT Plug and Play docs)."""
        identity = self._store.identity(key)
        if identity is not None and model_id not in ("", identity.model_id):
            self._store.commit(put=(replace(identity, model_id=model_id),))

    def _create(self, key: IdentityKey, body: object) -> JsonObject:
        now = self._clock()
        identity = identities.create(key, body, now)
        self._store.commit(put=(identity, twins.create(key, now)))
        self.thumbprints.add(identity)
        return self._document(identity, just_created=True)

    def _update(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        before = self.identity(key)
        if not if_match.allows(before.etag):
            raise PreconditionFailed
        identity = identities.update(before, body, self._clock())
        self._store.commit(put=(identity,))
        self.thumbprints.remove(before)
        self.thumbprints.add(identity)
        if not identity.enabled:
            for each in self._store.keys_of(key.device_id):
                self._drop(each, DeviceDisabled())
        return self._document(identity)

    def _check_delete(self, identity: Identity, if_match: IfMatch) -> None:
        if if_match.absent:
            raise PreconditionFailed("PreconditionFailed, Etag missing.")
        if not if_match.allows(identity.etag):
            raise PreconditionFailed

    def _delete(self, keys: Sequence[IdentityKey]) -> None:
        deleted = [self.identity(key) for key in keys]
        self._store.commit(delete=keys)
        for identity in deleted:
            self.thumbprints.remove(identity)
        for key in keys:
            self._drop(key, DeviceNotFound(key.device_id))
            for tell in self._when_deleted:
                tell(key)

    def _document(self, identity: Identity, *, just_created: bool = False) -> JsonObject:
        presence = self._connections.presence(identity.key)
        pending = self._pending(identity.key)
        if identity.key.module_id is not None:
            return documents.module(identity, presence)
        return documents.device(identity, presence, pending, just_created=just_created)

    def _pending(self, key: IdentityKey) -> int:
        queue: CommandQueue = self._store.command_queue(key.device_id)
        return queue.pending(self._clock()) if key.module_id is None and queue.commands else 0

    # --- twins

    def get_twin(self, key: IdentityKey) -> JsonObject:
        """Read a twin as a service sees it.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        presence, pending = self._connections.presence(key), self._pending(key)
        return documents.twin(self.identity(key), self._twin(key), presence, pending)

    def patch_twin(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Merge tags and desired properties into a twin, and tell the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
        """
        return self._change_twin(key, if_match, twins.patch, body)

    def replace_twin(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Replace a twin's tags and desired properties, and tell the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
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
        if not if_match.allows(twin.etag):
            raise PreconditionFailed(f"ETag mismatch for device ID '{key.device_id}'")
        change = change_twin(twin, body, self._clock())
        self._store.commit(put=(change.twin,))
        link = self._connections.link(key)
        if link is not None and change.desired is not None:
            link.notify_desired(dumps(change.desired), change.twin.desired.version)
        return self.get_twin(key)

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
        return twin.reported.version

    def _twin(self, key: IdentityKey) -> Twin:
        twin = self._store.twin(key)
        if twin is None:
            raise DeviceNotFound(key.device_id)
        return twin
