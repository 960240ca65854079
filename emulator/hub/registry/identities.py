"""The service over identities: services create, read, update and delete devices and modules.

An identity and its twin are created and deleted together. If a device is disabled or deleted, its
connection is closed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice

from msgspec.structs import replace

from emulator.hub.access.keys import SymmetricKeys, key_document
from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.slices import Slices
from emulator.hub.core.store import Deletion, Store
from emulator.hub.core.times import NEVER
from emulator.hub.feed import Feed
from emulator.hub.identities import identity as identities
from emulator.hub.identities import scopes
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Connected
from emulator.hub.links.links import Links, Presence
from emulator.hub.messages.commands import CommandQueue
from emulator.hub.registry import documents
from emulator.hub.registry.rows import Rows, device_identities, find
from emulator.hub.registry.twins import Twins
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes
from emulator.hub.twins.twin import Twin, TwinDeleted


class Identities:
    """The device and module identities of a hub."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        twins: Twins,
        links: Links,
        feed: Feed,
        clock: Clock,
        slices: Slices,
    ) -> None:
        self._store = store
        self._rows = rows
        self._twins = twins
        self._links = links
        self._feed = feed
        self._clock = clock
        self._slices = slices
        feed.subscribe(Connected, self._note_model)

    # --- for services

    def get(self, key: IdentityKey) -> JsonObject:
        """Return a device or module identity.

        Raises:
            DeviceNotFound, ModuleNotFound
            IotHubUnauthorizedAccess: the device of the module is missing or disabled.
        """
        self._check_device_of(key)
        return self.document(key)

    def put(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Create an identity; with `If-Match` update it.

        Raises:
            IotHubUnauthorizedAccess: the device of the module is missing or disabled.
            HubError: see `create` and `update`.
        """
        self._check_device_of(key)
        return self.create(key, body) if if_match.absent else self.update(key, body, if_match)

    def remove(self, key: IdentityKey, if_match: IfMatch) -> None:
        """Delete an identity.

        Raises:
            IotHubUnauthorizedAccess: the device of the module is missing or disabled.
            HubError: see `delete`.
        """
        self._check_device_of(key)
        self.delete(key, if_match)

    async def list_devices(self, top: int = limits.LIST_DEVICES) -> list[JsonObject]:
        """Return the `top` oldest device identities.

        A number that is not in 1 to 1,000 counts as 1,000 (seen on a real hub).
        """
        count = top if 1 <= top <= limits.LIST_DEVICES else limits.LIST_DEVICES
        listed, work = [], await self._slices.begin()
        for device in islice(device_identities(self._store), count):
            if self.has(device.key):  # else it was deleted meanwhile
                listed.append(self._document(device))
            if work.over:
                await work.rest()
        return listed

    def list_modules(self, device_id: str) -> list[JsonObject]:
        """Return the module identities of a device.

        Raises:
            IotHubUnauthorizedAccess: the device is missing or disabled.
        """
        self._check_device(device_id)
        return [self._document(identity) for identity in self._modules_of(device_id)]

    def _check_device_of(self, key: IdentityKey) -> None:
        if key.module_id is not None:
            self._check_device(key.device_id)

    def _check_device(self, device_id: str) -> None:
        # On a real hub, every request for module identities is refused with 401, not with 404.
        device = self._store.get(Identity, IdentityKey(device_id))
        if device is None or not device.enabled:
            raise errors.IotHubUnauthorizedAccess("Unauthorized access")

    # --- statistics

    async def device_statistics(self) -> JsonObject:
        """Return the numbers of all, of enabled and of disabled devices."""
        total, enabled, work = 0, 0, await self._slices.begin()
        for device in device_identities(self._store):
            total += 1
            enabled += device.enabled
            if work.over:
                await work.rest()
        return {
            "totalDeviceCount": total,
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": total - enabled,
        }

    def service_statistics(self) -> JsonObject:
        """Return the number of connected devices, without modules."""
        links = self._links.links()
        return {"connectedDeviceCount": sum(1 for link in links if link.key.module_id is None)}

    # --- for services, bulk calls and imports

    def has(self, key: IdentityKey) -> bool:
        """Return whether an identity is registered."""
        return self._store.get(Identity, key) is not None

    def document(self, key: IdentityKey) -> JsonObject:
        """Return an identity, also a module of a disabled device.

        Raises:
            DeviceNotFound, ModuleNotFound
        """
        return self._document(self._registered(key))

    def create(self, key: IdentityKey, body: object, *, twin: object = None) -> JsonObject:
        """Create an identity with its twin; an IoT Edge device also gets its system modules.

        Args:
            key: the key of the identity.
            body: the identity; see `identities.create`.
            twin: the tags and desired properties of the twin; see `writes.patch`. None means empty.

        Raises:
            DeviceAlreadyExists, ModuleAlreadyExistsOnDevice, TooManyDevices
            DeviceNotFound: the device of the module is missing.
            TooManyModulesOnDevice: 20 modules are allowed, without the hub's own.
            ArgumentInvalid, DeserializationError: the body or the twin is invalid.
            InvalidDeviceScope: a scope is not the scope of an IoT Edge device.
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
        document = self._document(identity, just_created=True)  # before a subscriber writes
        self._publish_created(created, now)
        return document

    def update(
        self, key: IdentityKey, body: object, if_match: IfMatch, *, twin: object = None
    ) -> JsonObject:
        """Update an identity; if it is disabled, its connection is closed.

        Args:
            key: the key of the identity.
            body: the identity; see `identities.update`.
            if_match: the condition on its etag.
            twin: tags and desired properties to merge into its twin; None does not change it.

        Raises:
            DeviceNotFound, ModuleNotFound
            SystemModuleModifyUnauthorizedAccess: the module is the hub's own.
            PreconditionFailed: the etag is stale.
            ArgumentInvalid, DeserializationError: the body or the twin is invalid.
            InvalidDeviceScope: a scope is not the scope of an IoT Edge device.
        """
        before = self._changeable(key)
        if not if_match.allows(before.etag):
            raise errors.PreconditionFailed
        now = self._clock.now()
        identity = identities.update(before, body, now)
        self._check_parents(identity, known=before.scopes.parents)
        twin_before = find(self._store, Twin, key)
        change = writes.patch(twin_before, {} if twin is None else twin, now)
        created, deleted = self._system_modules_of(before, identity, now)
        others = [twins.create(module.key, now) for module in created]
        gone = [find(self._store, Twin, each.key) for each in deleted]
        written = () if change.twin is twin_before else (change.twin,)
        self._store.commit(put=(identity, *written, *created, *others), delete=_deletions(deleted))
        self._feed.publish(identities.IdentityChanged(identity, now, before))
        if not identity.enabled:
            for each in self._store.scan(Identity, (key.device_id,)):
                self._links.drop(each.key, errors.DeviceDisabled())
        self._publish_deleted(deleted, gone, now)
        document = self._document(identity)  # before a subscriber writes
        if change.twin is not twin_before:
            self._twins.publish(change)
        self._publish_created(created, now)
        return document

    def renew_keys(self, key: IdentityKey, names: Collection[str]) -> JsonObject:
        """Replace symmetric keys of an identity; open connections stay.

        Args:
            key: the key of the identity.
            names: `primaryKey`, `secondaryKey`, or both.

        Returns:
            The new keys, by name.

        Raises:
            DeviceNotFound, ModuleNotFound
            SystemModuleModifyUnauthorizedAccess: the module is the hub's own.
            ArgumentInvalid: the identity does not authenticate with keys.
        """
        body = self._document(self._changeable(key))
        authentication = body["authentication"]
        if authentication["type"] != "sas":
            raise errors.ArgumentInvalid(
                f"{key} has no symmetric keys: its authentication type is {authentication['type']}"
            )
        keys = key_document(SymmetricKeys.generate())
        new = {name: keys[name] for name in names}
        authentication["symmetricKey"] |= new
        self.update(key, body, IfMatch("*"))
        return new

    def delete(self, key: IdentityKey, if_match: IfMatch) -> None:
        """Delete an identity with its twin; a device also with its modules and its messages.

        The children of an IoT Edge device keep its scope; the behaviour of a real hub is unknown.

        Raises:
            DeviceNotFound, ModuleNotFound
            SystemModuleModifyUnauthorizedAccess: the module is the hub's own; the hub deletes it
                with its device.
            PreconditionFailed: the etag is stale or missing.
        """
        identity = self._changeable(key)
        if if_match.absent:
            raise errors.PreconditionFailed("PreconditionFailed, Etag missing.")
        if not if_match.allows(identity.etag):
            raise errors.PreconditionFailed
        deleted = [identity]
        if key.module_id is None:
            deleted = list(self._store.scan(Identity, (key.device_id,)))
        gone = [find(self._store, Twin, each.key) for each in deleted]
        self._store.commit(delete=_deletions(deleted))
        self._publish_deleted(deleted, gone, self._clock.now())

    def _note_model(self, change: Connected) -> None:
        """Store the model of a device, which its twin shows (IoT Plug and Play docs)."""
        model_id = change.admission.model_id
        before = self._store.get(Identity, change.admission.key)
        if before is not None and model_id not in ("", before.model_id):
            identity = replace(before, model_id=model_id)
            self._store.commit(put=(identity,))
            self._feed.publish(identities.IdentityChanged(identity, change.time, before))

    def _registered(self, key: IdentityKey) -> Identity:
        """Return an identity, as `find`; raise ModuleNotFound for a missing module."""
        if key.module_id is not None and not self.has(key):
            find(self._store, Identity, IdentityKey(key.device_id))
            raise errors.ModuleNotFound(str(key))
        return find(self._store, Identity, key)

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
                raise errors.DeviceAlreadyExists(
                    f"A device with ID '{key.device_id}' is already registered."
                )
            if self._rows.device_count >= limits.DEVICES_PER_HUB:
                raise errors.TooManyDevices
            return
        find(self._store, Identity, IdentityKey(key.device_id))
        # The id of a system module is refused later, with another error (seen on a real hub).
        if exists and not key.is_system_module:
            raise errors.ModuleAlreadyExistsOnDevice(
                f"Device {key.device_id} already contains Module {key.module_id}."
            )
        own = [each for each in self._modules_of(key.device_id) if not each.key.is_system_module]
        if len(own) >= limits.MODULES_PER_DEVICE:
            raise errors.TooManyModulesOnDevice

    def _check_parents(self, identity: Identity, known: Sequence[str] = ()) -> None:
        """Check that new scopes are scopes of IoT Edge devices."""
        for scope in identity.scopes.parents:
            if scope in known:
                continue  # perhaps its parent was deleted
            parent = self._store.get(Identity, IdentityKey(scopes.device_of(scope)))
            # The scope of a leaf never contains its own id, so the parent is an IoT Edge device.
            if parent is None or parent.scopes.device != scope or parent.key == identity.key:
                raise errors.InvalidDeviceScope(
                    f"Invalid scope: {scope}. Use the scope of an IoT Edge device"
                )

    def _system_modules_of(
        self, before: Identity, after: Identity, now: datetime
    ) -> tuple[list[Identity], list[Identity]]:
        """Return the system modules to create and to delete with an update of their device."""
        if before.iot_edge == after.iot_edge:
            return [], []
        if after.iot_edge:
            return identities.system_modules(after.key.device_id, now), []
        # Not seen on a real hub. But a device without the runtime cannot have its modules.
        modules = self._modules_of(after.key.device_id)
        return [], [module for module in modules if module.key.is_system_module]

    def _publish_created(self, created: Sequence[Identity], now: datetime) -> None:
        for identity in created:
            self._feed.publish(identities.IdentityCreated(identity, now))

    def _publish_deleted(
        self, deleted: Sequence[Identity], gone: Sequence[Twin], now: datetime
    ) -> None:
        """Close the connections of deleted identities, and publish the changes."""
        for identity, twin in zip(deleted, gone, strict=True):
            self._links.drop(identity.key, errors.DeviceNotFound(identity.key.device_id))
            self._feed.publish(identities.IdentityDeleted(identity, now))
            self._feed.publish(TwinDeleted(twin, now))

    def _document(self, identity: Identity, *, just_created: bool = False) -> JsonObject:
        return documents.identity(self._rows.row(identity.key), just_created=just_created)


def _deletions(identities: Sequence[Identity]) -> list[Deletion]:
    """Return the records of identities: identity, twin, presence, and the queue of a device."""
    keys = [identity.key for identity in identities]
    devices = [key.device_id for key in keys if key.module_id is None]
    return [
        *((kind, key) for key in keys for kind in (Identity, Twin, Presence)),
        *((CommandQueue, (device_id,)) for device_id in devices),
    ]


def _first_twin(key: IdentityKey, body: object, now: datetime) -> Twin:
    """Return the twin of a new identity, with its first tags and desired properties.

    They belong to the first version of the twin. The desired properties of a device have no date,
    and the reported properties of a module have a version (seen on a real hub).

    Raises:
        ArgumentInvalid: the body is invalid.
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
