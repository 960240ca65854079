"""The service over identities: services create, read, update and delete devices and modules.

An identity and its twin are created and deleted together. A change that concerns a live connection
(a device is disabled) closes that connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Deletion, Record, Store
from emulator.hub.core.times import NEVER
from emulator.hub.feed import Feed
from emulator.hub.identities import identity as identities
from emulator.hub.identities import scopes
from emulator.hub.identities.changes import IdentityChanged, IdentityCreated, IdentityDeleted
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.changes import Connected
from emulator.hub.links.links import Links
from emulator.hub.messages.cloud_to_device import CloudToDevice
from emulator.hub.messages.commands import CommandQueue
from emulator.hub.registry import documents
from emulator.hub.registry.rows import device_identities, find_identity, find_twin
from emulator.hub.registry.twins import Twins
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes
from emulator.hub.twins.twin import Twin


class Identities:
    """The device and module identities of a hub."""

    def __init__(
        self,
        store: Store,
        twins: Twins,
        links: Links,
        cloud_to_device: CloudToDevice,
        feed: Feed,
        clock: Clock,
    ) -> None:
        self._store = store
        self._twins = twins
        self._links = links
        self._cloud_to_device = cloud_to_device
        self._feed = feed
        self._clock = clock
        self._device_count = sum(1 for _ in device_identities(store))
        feed.subscribe(Connected, self._note_model)

    # --- devices, as their routes have it

    def get_device(self, device_id: str) -> JsonObject:
        """Read a device identity.

        Raises:
            DeviceNotFound
        """
        return self._document(self._identity(IdentityKey(device_id)))

    def put_device(self, device_id: str, body: object, if_match: IfMatch) -> JsonObject:
        """Create a device, or with `If-Match` update it.

        Raises:
            DeviceAlreadyExists, TooManyDevices: as `create`.
            DeviceNotFound, PreconditionFailed: as `update`.
            ArgumentInvalid, DeserializationError, InvalidDeviceScope: the body is not valid.
        """
        key = IdentityKey(device_id)
        return self.create(key, body) if if_match.absent else self.update(key, body, if_match)

    def delete_device(self, device_id: str, if_match: IfMatch) -> None:
        """Delete a device, with its modules, their twins and its messages; it is dropped.

        Raises:
            DeviceNotFound
            PreconditionFailed: the etag is stale, or there is none.
        """
        self.delete(IdentityKey(device_id), if_match)

    def list_devices(self, top: int = limits.LIST_DEVICES) -> list[JsonObject]:
        """List device identities, oldest first: `top` of them, 1 to 1,000.

        Anything outside that range counts as 1,000 (seen on a real hub).
        """
        count = top if 1 <= top <= limits.LIST_DEVICES else limits.LIST_DEVICES
        return [
            self._document(identity)
            for identity, _ in zip(device_identities(self._store), range(count), strict=False)
        ]

    # --- modules, as their routes have it

    def get_module(self, key: IdentityKey) -> JsonObject:
        """Read a module identity.

        Raises:
            ModuleNotFound
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(key)
        return self._document(self._registered(key))

    def put_module(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Create a module, or with `If-Match` update it.

        Raises:
            ModuleAlreadyExistsOnDevice, TooManyModulesOnDevice: as `create`.
            ModuleNotFound, PreconditionFailed, SystemModuleModifyUnauthorizedAccess: as `update`.
            ArgumentInvalid, DeserializationError: the body is not valid.
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(key)
        return self.create(key, body) if if_match.absent else self.update(key, body, if_match)

    def delete_module(self, key: IdentityKey, if_match: IfMatch) -> None:
        """Delete a module with its twin; it is dropped.

        Raises:
            ModuleNotFound
            SystemModuleModifyUnauthorizedAccess: it goes with its device alone.
            PreconditionFailed: the etag is stale, or there is none.
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(key)
        self.delete(key, if_match)

    def list_modules(self, device_id: str) -> list[JsonObject]:
        """List the module identities of a device.

        Raises:
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device_of(IdentityKey(device_id))
        return [self._document(identity) for identity in self._modules_of(device_id)]

    def _check_device_of(self, key: IdentityKey) -> None:
        # A real hub answers so, and not with 404, to any call on module identities (seen there).
        device = self._store.get(Identity, IdentityKey(key.device_id))
        if device is None or not device.enabled:
            raise errors.IotHubUnauthorizedAccess("Unauthorized access")

    # --- statistics

    def device_statistics(self) -> JsonObject:
        """Count the devices: all, those that are enabled, and those that are not."""
        enabled = sum(1 for device in device_identities(self._store) if device.enabled)
        return {
            "totalDeviceCount": self._device_count,
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": self._device_count - enabled,
        }

    def service_statistics(self) -> JsonObject:
        """Count the devices that are connected; modules are none."""
        links = self._links.links()
        return {"connectedDeviceCount": sum(1 for link in links if link.key.module_id is None)}

    # --- devices and modules alike

    def has(self, key: IdentityKey) -> bool:
        """Say whether an identity is registered."""
        return self._store.get(Identity, key) is not None

    def create(self, key: IdentityKey, body: object, *, twin: object = None) -> JsonObject:
        """Create an identity with its twin; an IoT Edge device gets its system modules, too.

        Args:
            body: the identity, as `identities.create` reads it.
            twin: what its tags and desired properties are to be, as `twins.patch` reads it; None is
                nothing.

        Raises:
            DeviceAlreadyExists, ModuleAlreadyExistsOnDevice
            DeviceNotFound: a module's device.
            TooManyDevices
            TooManyModulesOnDevice: 20 are allowed; the hub's own don't count.
            ArgumentInvalid, DeserializationError: the body or the twin is not valid.
            InvalidDeviceScope: a scope names no IoT Edge device.
        """
        self._check_room(key)
        now = self._clock.now()
        identity = identities.create(key, body, now)
        self._check_parents(identity)
        created = [identity]
        if identity.iot_edge:
            created += identities.system_modules(key.device_id, now)
        others = [twins.create(module.key, now) for module in created[1:]]
        self._store.commit(put=(*created, _first_twin(key, twin, now), *others))
        if key.module_id is None:
            self._device_count += 1
        self._publish_created(created, now)
        return self._document(identity, just_created=True)

    def update(
        self, key: IdentityKey, body: object, if_match: IfMatch, *, twin: object = None
    ) -> JsonObject:
        """Replace what a client may set of an identity; one that is disabled is dropped.

        Args:
            body: the identity, as `identities.update` reads it.
            twin: tags and desired properties to merge into its twin; None leaves it alone.

        Raises:
            DeviceNotFound, ModuleNotFound
            SystemModuleModifyUnauthorizedAccess: it is the hub's own.
            PreconditionFailed: the etag is stale.
            ArgumentInvalid, DeserializationError: the body or the twin is not valid.
            InvalidDeviceScope: a scope names no IoT Edge device.
        """
        before = self._changeable(key)
        if not if_match.allows(before.etag):
            raise errors.PreconditionFailed
        now = self._clock.now()
        identity = identities.update(before, body, now)
        self._check_parents(identity, known=before.scopes.parents)
        records: list[Record] = [identity]
        twin_before = find_twin(self._store, key)
        change = writes.patch(twin_before, {} if twin is None else twin, now)
        if change.twin is not twin_before:
            records.append(change.twin)
        created, deleted = self._system_modules_of(before, identity, now)
        records += [*created, *(twins.create(module.key, now) for module in created)]
        self._store.commit(put=records, delete=_deletions(deleted))
        self._feed.publish(IdentityChanged(before, identity, now))
        if not identity.enabled:
            for each in self._store.scan(Identity, (key.device_id,)):
                self._links.drop(each.key, errors.DeviceDisabled())
        self._publish_deleted(deleted, now)
        document = self._document(identity)  # before anything that a subscriber writes
        if change.twin is not twin_before:
            self._twins.notify(change)
            self._feed.publish(change)
        self._publish_created(created, now)
        return document

    def delete(self, key: IdentityKey, if_match: IfMatch) -> None:
        """Delete an identity with its twin; a device with its modules and its messages, too.

        The children of an IoT Edge device keep its scope: whether a real hub cuts them loose is not
        known, and nobody else's identity is to change behind its back.

        Raises:
            DeviceNotFound, ModuleNotFound
            SystemModuleModifyUnauthorizedAccess: it is the hub's own, and goes with its device.
            PreconditionFailed: the etag is stale, or there is none.
        """
        identity = self._changeable(key)
        if if_match.absent:
            raise errors.PreconditionFailed("PreconditionFailed, Etag missing.")
        if not if_match.allows(identity.etag):
            raise errors.PreconditionFailed
        deleted = [identity]
        if key.module_id is None:
            deleted = list(self._store.scan(Identity, (key.device_id,)))
        self._store.commit(delete=_deletions(deleted))
        if key.module_id is None:
            self._device_count -= 1
        self._publish_deleted(deleted, self._clock.now())

    def _note_model(self, change: Connected) -> None:
        """Show in the twin which model a device says it implements (IoT Plug and Play docs)."""
        model_id = change.admission.model_id
        identity = self._store.get(Identity, change.admission.key)
        if identity is not None and model_id not in ("", identity.model_id):
            self._store.commit(put=(replace(identity, model_id=model_id),))

    def _identity(self, key: IdentityKey) -> Identity:
        return find_identity(self._store, key)

    def _registered(self, key: IdentityKey) -> Identity:
        """Find an identity: the same as `identity`, but that a missing module is called so."""
        identity = self._store.get(Identity, key)
        if identity is None and key.module_id is not None:
            self._identity(IdentityKey(key.device_id))
            raise errors.ModuleNotFound(f"{key.device_id}/{key.module_id}")
        return self._identity(key)

    def _changeable(self, key: IdentityKey) -> Identity:
        identity = self._registered(key)
        if key.is_system_module:
            raise errors.SystemModuleModifyUnauthorizedAccess
        return identity

    def _modules_of(self, device_id: str) -> list[Identity]:
        family = self._store.scan(Identity, (device_id,))
        return [each for each in family if each.key.module_id is not None]

    def _check_room(self, key: IdentityKey) -> None:
        exists = self.has(key)
        if key.module_id is None:
            if exists:
                text = f"A device with ID '{key.device_id}' is already registered."
                raise errors.DeviceAlreadyExists(text)
            if self._device_count >= limits.DEVICES_PER_HUB:
                raise errors.TooManyDevices
            return
        self._identity(IdentityKey(key.device_id))
        # That such an id is not a client's to give comes first (seen on a real hub).
        if exists and not key.is_system_module:
            raise errors.ModuleAlreadyExistsOnDevice(
                f"Device {key.device_id} already contains Module {key.module_id}."
            )
        modules = self._modules_of(key.device_id)
        own = [each for each in modules if not each.key.is_system_module]
        if len(own) >= limits.MODULES_PER_DEVICE:
            raise errors.TooManyModulesOnDevice

    def _check_parents(self, identity: Identity, known: Sequence[str] = ()) -> None:
        """Check that scopes name IoT Edge devices, but for those that the device has already."""
        for scope in identity.scopes.parents:
            if scope in known:
                continue  # its parent may be gone by now
            parent = self._store.get(Identity, IdentityKey(scopes.device_of(scope)))
            # A leaf's scope is never one that names the leaf, so this is an IoT Edge device's.
            if parent is None or parent.scopes.device != scope or parent.key == identity.key:
                raise errors.InvalidDeviceScope(f"The scope {scope} is not of an IoT Edge device")

    def _system_modules_of(
        self, before: Identity, after: Identity, now: datetime
    ) -> tuple[list[Identity], list[Identity]]:
        """Give the system modules that come and those that go with an update of their device."""
        if before.iot_edge == after.iot_edge:
            return [], []
        if after.iot_edge:
            return identities.system_modules(after.key.device_id, now), []
        # Not seen on a real hub, but a device without the runtime can't have modules of it.
        modules = self._modules_of(after.key.device_id)
        return [], [module for module in modules if module.key.is_system_module]

    def _publish_created(self, created: Sequence[Identity], now: datetime) -> None:
        for identity in created:
            self._feed.publish(IdentityCreated(identity, now))

    def _publish_deleted(self, deleted: Sequence[Identity], now: datetime) -> None:
        """Close the connections of identities that were deleted, and publish that they are gone."""
        for identity in deleted:
            self._links.drop(identity.key, errors.DeviceNotFound(identity.key.device_id))
            self._feed.publish(IdentityDeleted(identity, now))

    def _document(self, identity: Identity, *, just_created: bool = False) -> JsonObject:
        presence = self._links.presence(identity.key)
        if identity.key.module_id is not None:
            return documents.module(identity, presence, just_created=just_created)
        pending = self._cloud_to_device.pending(identity.key.device_id)
        return documents.device(identity, presence, pending, just_created=just_created)


def _deletions(identities: Sequence[Identity]) -> list[Deletion]:
    """Return what to delete of identities: themselves, their twins, and messages of devices."""
    keys = [identity.key for identity in identities]
    devices = [key.device_id for key in keys if key.module_id is None]
    return [
        *((kind, key) for key in keys for kind in (Identity, Twin)),
        *((CommandQueue, (device_id,)) for device_id in devices),
    ]


def _first_twin(key: IdentityKey, body: object, now: datetime) -> Twin:
    """Make the twin of a new identity, with tags and desired properties that it has from the start.

    These are its first version, not the second, and their dates are odd: a device's desired
    properties have none, a module's reported ones have a version as well (seen on a real hub).

    Raises:
        ArgumentInvalid: the body is not valid.
    """
    twin = twins.create(key, now)
    if body is None:
        return twin
    unwritten = replace(twin, desired=replace(twin.desired, version=0), revision=0)
    change = writes.patch(unwritten, body, NEVER if key.module_id is None else now)
    first = replace(change.twin, revision=twin.revision)
    if change.desired is None:
        return replace(first, desired=twin.desired)
    if key.module_id is None:
        return first
    dates = {name: first.desired.metadata[name] for name in ("$lastUpdated", "$lastUpdatedVersion")}
    return replace(first, reported=replace(first.reported, metadata=dates))
