"""The state of an emulator: a hub over its store, set up as the settings say."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from sqlite3 import Connection

from msgspec import Struct

from emulator.disk.snapshot import load
from emulator.disk.store import DiskStore
from emulator.errors import StartError
from emulator.hub.access.keys import SymmetricKeys, key_document
from emulator.hub.access.policies import PROVISIONING_RIGHTS, Policy, PolicyKeys, Right
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import HubError, ServiceUnavailable
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import MemoryStore, Store
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.messages.event_log import EventLog
from emulator.hub.uploads.storage import UploadStorage
from emulator.setting import ACCEPT
from emulator.settings import Settings
from emulator.storage.storage import Storage

log = logging.getLogger(__name__)


class State(Struct, frozen=True, kw_only=True):
    """A hub, with the policies that callers need keys of, and the storage of its uploads."""

    hub: IotHub
    policies: Mapping[str, Policy]
    upload_storage: UploadStorage | None


def open_store(settings: Settings) -> MemoryStore:
    """Open the file of this host in the data folder; without a folder, nothing lasts.

    Raises:
        StartError: see `DiskStore`.
    """
    if settings.data_dir is None:
        return MemoryStore()
    file = settings.data_dir / f"hub-{settings.host_in_file_names}.sqlite"
    return DiskStore(file, recover=settings.recover)


@contextlib.contextmanager
def replaced(store: MemoryStore, snapshot: Connection | None) -> Iterator[MemoryStore]:
    """Put a snapshot, or nothing, in the place of what a store has.

    The block receives the new store. If the block fails, nothing has changed.

    Raises:
        ServiceUnavailable: the file of the hub can't be written.
    """
    if isinstance(store, DiskStore):
        with store.replaced(snapshot) as fresh:
            yield fresh
    else:
        yield load(snapshot)


def open_state(
    settings: Settings,
    store: Store,
    hosts: Sequence[str],
    clock: Clock,
    policies: Mapping[str, Policy] | None = None,
    *,
    authorities: Sequence[tuple[str, bytes]],
    upload_storage: UploadStorage | None = None,
) -> State:
    """Build a hub on what its store has.

    Args:
        settings: how the hub is set up.
        store: its store.
        hosts: its names.
        clock: its clock.
        policies: its policies; None is those of the settings and of the store.
        upload_storage: where devices put their files; None refuses uploads.
        authorities: the CAs of the settings, DER, each with its name.

    Raises:
        ServiceUnavailable: the store can't write.
        StorageError: a setting is invalid.
    """
    policies = {
        name: Policy(name, rights, _policy_keys(settings, store, name, policies))
        for name, rights in _rights(settings).items()
    }
    hub = IotHub(
        store=store,
        clock=clock,
        policies=policies.values(),
        hosts=hosts,
        blobs=Storage(settings.storage, settings.allowed_storage_hosts),
        throttles=Throttles.parse(settings.throttle, clock=clock),
        events=_open_log(settings, store, clock),
        event_sources=settings.event_sources,
        accepts_entra=settings.entra == ACCEPT,
        token_tolerance=settings.sas_tolerance,
        takes_fault_requests=settings.fault_messages,
        upload_storage=upload_storage,
        authorities=authorities,
    )
    for name, key in settings.keys.items():
        _renew_key(hub, store, IdentityKey(name), key)
    return State(hub=hub, policies=policies, upload_storage=upload_storage)


def register_first(hub: IotHub, settings: Settings, keys: Mapping[str, SymmetricKeys]) -> None:
    """Register the devices of the settings that are missing.

    Args:
        hub: the hub.
        settings: the settings.
        keys: the keys that some of them had before.

    Raises:
        StartError: a device can't be registered.
        ServiceUnavailable: the store can't write.
    """
    for device_id in settings.new_devices:
        if hub.identities.has(IdentityKey(device_id)):
            continue
        try:
            register(hub, settings, IdentityKey(device_id), keys.get(device_id))
        except ServiceUnavailable:
            raise
        except HubError as error:
            raise StartError(f"--device: {error.text}") from error


def first_keys(store: Store, settings: Settings) -> dict[str, SymmetricKeys]:
    """Return the keys that the devices of the settings have, where they have any."""
    found = {each: store.get(Identity, IdentityKey(each)) for each in settings.new_devices}
    return {
        device_id: keys
        for device_id, device in found.items()
        if device is not None and (keys := device.authentication.keys) is not None
    }


@contextlib.contextmanager
def starting(settings: Settings) -> Iterator[None]:
    """Explain that the store can't write while a hub starts.

    Raises:
        StartError
    """
    try:
        yield
    except ServiceUnavailable as error:
        raise StartError(
            f"Can't keep the hub in {settings.data_dir}. Free disk space, or use another folder: "
            "--data-dir DIR."
        ) from error


async def apply_config(hub: IotHub, settings: Settings) -> None:
    """Apply the content of the configuration file, for a hub that starts or was reset.

    Raises:
        ConfigError: the hub refuses an entry.
    """
    if settings.config is None:
        return
    # Imported here: most hubs have no configuration file.
    from emulator.config.apply import apply
    from emulator.config.mistakes import ConfigError

    try:
        await apply(hub, settings.config.content, settings.key_pair)
    except ConfigError as error:
        raise ConfigError(error.mistakes, settings.config.path) from None


def register(
    hub: IotHub,
    settings: Settings,
    key: IdentityKey,
    keys: SymmetricKeys | None = None,
    *,
    members: JsonObject | None = None,
    twin: JsonObject | None = None,
) -> None:
    """Register a device or module, with some keys or with those that the settings choose.

    Args:
        hub: the hub.
        settings: how the hub is set up.
        key: the key of the identity.
        keys: its keys; None chooses them by the settings.
        members: members of its document; an `authentication` replaces the keys.
        twin: its first tags and desired properties; see `Identities.create`.

    Raises:
        HubError: see `Identities.create`.
    """
    keys = keys or SymmetricKeys(*settings.key_pair(str(key)))
    body = {
        "deviceId": key.device_id,
        "moduleId": key.module_id,
        "authentication": {"type": "sas", "symmetricKey": key_document(keys)},
    }
    hub.identities.create(key, {**body, **(members or {})}, twin=twin)


def _open_log(settings: Settings, store: Store, clock: Clock) -> EventLog:
    events = EventLog(
        clock=clock,
        partitions=settings.partitions or limits.EVENT_LOG_PARTITIONS,
        retention=settings.retention,
        consumer_groups=settings.consumer_groups,
        store=store,
        **settings.event_log_bounds,
    )
    if settings.partitions not in (None, len(events.partitions)):
        log.warning(
            "The hub has %d partitions, not %d: their number is that of its first start. For "
            "another number, begin a new hub in another folder: --data-dir DIR.",
            len(events.partitions),
            settings.partitions,
        )
    return events


def _rights(settings: Settings) -> Mapping[str, Right]:
    """Return the policies of the hub, and that of the other service."""
    others = {} if settings.no_dps else PROVISIONING_RIGHTS
    named = settings.rights
    return {**named, **{name: right for name, right in others.items() if name not in named}}


def _policy_keys(
    settings: Settings, store: Store, name: str, before: Mapping[str, Policy] | None
) -> SymmetricKeys:
    """Return the keys of a policy: those before, or that the settings choose, or of the store."""
    stored = store.get(PolicyKeys, (name,))
    if before is not None:
        keys = PolicyKeys(name, before[name].keys)
    elif stored is not None and not settings.chooses_key(name):
        return stored.keys
    else:
        keys = PolicyKeys(name, SymmetricKeys(*settings.key_pair(name)))
    if keys != stored:
        store.commit(put=(keys,))
    return keys.keys


def _renew_key(hub: IotHub, store: Store, key: IdentityKey, chosen: str) -> None:
    """Replace the keys of a device that an earlier run has registered with other ones."""
    device = store.get(Identity, key)
    if device is None or (keys := device.authentication.keys) is None:
        return
    if keys != (new := SymmetricKeys(chosen, chosen)):
        body = hub.identities.get(key)
        body["authentication"]["symmetricKey"] = key_document(new)
        hub.identities.update(key, body, IfMatch("*"))
