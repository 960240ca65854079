"""Applies the content of a configuration file to a hub.

It creates and updates, and deletes what an earlier file has created and this one no longer has.
What a file wrote is remembered in the store of the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from msgspec import UNSET, Struct

from emulator.config.content import (
    CertificateEntry,
    ConfigurationEntry,
    Content,
    IdentityEntry,
    ModuleEntry,
)
from emulator.config.mistakes import ConfigError, Mistake
from emulator.hub.access.keys import SymmetricKeys, key_document
from emulator.hub.authorities.authority import Authority, AuthorityKey, key_of
from emulator.hub.configurations import records
from emulator.hub.configurations.records import Configuration, ConfigurationKey
from emulator.hub.core.errors import ArgumentInvalid, HubError, ServiceUnavailable
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, equal
from emulator.hub.core.slices import Work
from emulator.hub.core.store import MemoryStore
from emulator.hub.core.times import NEVER
from emulator.hub.faults.fault import Fault
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey, check_id
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes

T = TypeVar("T")

# The keys of an identity that has none in the file: the primary and the secondary one.
ChooseKeys = Callable[[str], tuple[str, str]]

_ANY = IfMatch("*")
# The ids of the faults that a file has turned on. They end with their hub, so no store has them.
_faults: WeakKeyDictionary[IotHub, list[int]] = WeakKeyDictionary()
# The members of a configuration that the hub sets.
_OF_THE_HUB = ("createdTimeUtc", "lastUpdatedTimeUtc", "etag")


class WrittenIdentity(Struct, frozen=True):
    """What a file wrote into a device or module.

    Args:
        key: the identity.
        created: the generation id of the identity that the file created; None if it was there.
        tags: the tags of the file.
        desired: the desired properties of the file.
    """

    key: IdentityKey
    created: str | None
    tags: JsonObject
    desired: JsonObject


class WrittenConfiguration(Struct, frozen=True):
    """A configuration that a file has created."""

    key: ConfigurationKey


class WrittenAuthority(Struct, frozen=True):
    """A CA that a file has registered."""

    key: AuthorityKey


class Applied(Struct):
    """What has changed: the numbers of devices, modules, CAs and configurations."""

    created: int = 0
    changed: int = 0
    deleted: int = 0


async def apply(hub: IotHub, content: Content, choose_keys: ChooseKeys) -> Applied:
    """Apply all content but policies, which belong to the start of a hub.

    Nothing is applied if a new hub would refuse an entry.

    Raises:
        ConfigError: an entry is invalid.
    """
    await check(content, choose_keys)
    applied = await _Work(hub, choose_keys).apply(content)
    _turn_on_faults(hub, content)
    return applied


async def check(content: Content, choose_keys: ChooseKeys) -> None:
    """Apply the content to an empty hub, which refuses what is invalid.

    Raises:
        ConfigError: an entry is invalid.
    """
    hub = IotHub(store=MemoryStore(), policies=(), hosts=("check",))
    try:
        await _Work(hub, choose_keys).apply(content)
    finally:
        await hub.stop()


def _turn_on_faults(hub: IotHub, content: Content) -> None:
    """Turn on the faults of a file in place of those of an earlier file."""
    for number in _faults.pop(hub, ()):
        hub.faults.discard(number)
    _faults[hub] = [hub.faults.add(Fault.parse(each)) for each in content.faults]


class _Work:
    """One file on its way into one hub."""

    def __init__(self, hub: IotHub, choose_keys: ChooseKeys) -> None:
        self._hub = hub
        self._store = hub.store
        self._choose_keys = choose_keys
        self._mistakes: list[Mistake] = []
        self._applied = Applied()

    async def apply(self, content: Content) -> Applied:
        """Delete what the file no longer has, then create and update what it has."""
        identities = content.identities()
        self._delete_authorities({key_of(each.name) for each in content.certificates})
        self._try("certificates", content.certificates, self._put_authority)
        await self._delete_configurations({each.id for each in content.configurations})
        self._delete_identities({key for _, key, _ in identities})
        refused: set[str] = set()
        work = await self._hub.slices.begin()
        for place, key, entry in identities:
            if work.over:
                await work.rest()
            if key.device_id in refused:
                continue  # each of its modules would be a mistake too
            try:
                self._put_identity(key, entry)
            except ServiceUnavailable:
                raise  # not of this entry: the store can't write
            except HubError as error:
                self._note(f"{place}{_member_of(error, key, entry)}", error)
                if key.module_id is None:
                    refused.add(key.device_id)
        for number, configuration in enumerate(content.configurations):
            try:
                await self._put_configuration(configuration, work)
            except ServiceUnavailable:
                raise
            except HubError as error:
                self._note(f"configurations[{number}]", error)
        if self._mistakes:
            raise ConfigError(self._mistakes)
        return self._applied

    def _try(self, place: str, entries: Iterable[T], put: Callable[[T], None]) -> None:
        """Apply entries; what the hub refuses is noted."""
        for number, entry in enumerate(entries):
            try:
                put(entry)
            except ServiceUnavailable:
                raise
            except HubError as error:
                self._note(f"{place}[{number}]", error)

    def _note(self, place: str, error: HubError) -> None:
        text = (error.text or error.name).rstrip(".")
        self._mistakes.append(Mistake(place, f"The hub refuses it: {text}."))

    # --- devices and modules

    def _put_identity(self, key: IdentityKey, entry: IdentityEntry) -> None:
        written = self._store.get(WrittenIdentity, key)
        if not self._hub.identities.has(key):
            self._create_identity(key, entry)
            return
        before = self._hub.identities.document(key)
        old = written or WrittenIdentity(key, None, {}, {})
        new = WrittenIdentity(key, old.created, entry.tags, entry.desired)
        body = {**before, **_members(entry)}
        body["authentication"] = self._authentication(key, entry, before["authentication"])
        changed = not equal(body, before)
        if changed:
            self._hub.identities.update(key, body, _ANY)
        changed |= self._merge_twin(old, new)
        self._applied.changed += changed
        if new != written:
            self._store.commit(put=(new,))

    def _create_identity(self, key: IdentityKey, entry: IdentityEntry) -> None:
        body = {"deviceId": key.device_id, "moduleId": key.module_id, **_members(entry)}
        body["authentication"] = self._authentication(key, entry, {})
        twin = {"tags": entry.tags, "properties": {"desired": entry.desired}}
        document = self._hub.identities.create(key, body, twin=twin)
        created = document["generationId"]
        self._store.commit(put=(WrittenIdentity(key, created, entry.tags, entry.desired),))
        self._applied.created += 1

    def _authentication(
        self, key: IdentityKey, entry: IdentityEntry, before: JsonObject
    ) -> JsonObject:
        """Return the credentials that the entry names, or else those that are there."""
        keys, thumbprints = entry.keys, entry.thumbprints
        kind = entry.authentication
        if kind is UNSET:
            kind = "selfSigned" if thumbprints else "sas" if keys else before.get("type", "sas")
        if kind == before.get("type") and not keys and not thumbprints:
            return before
        if kind == "sas":
            keys = keys or SymmetricKeys(*self._choose_keys(str(key)))
        primary, secondary = thumbprints or (None, None)
        return {
            "symmetricKey": key_document(keys),
            "x509Thumbprint": {"primaryThumbprint": primary, "secondaryThumbprint": secondary},
            "type": kind,
        }

    def _merge_twin(self, old: WrittenIdentity, new: WrittenIdentity) -> bool:
        """Merge what the file has; what it had before and no longer has is removed."""
        twin = self._hub.twins.get(new.key)
        tags = _patch(twin.get("tags", {}), old.tags, new.tags)
        desired = _patch(twin["properties"]["desired"], old.desired, new.desired)
        body: JsonObject = {"tags": tags} if tags else {}
        if desired:
            body["properties"] = {"desired": desired}
        if body:
            self._hub.twins.write(new.key, body)
        return bool(body)

    def _delete_identities(self, kept: set[IdentityKey]) -> None:
        """Delete what an earlier file has created, and remove what it wrote elsewhere."""
        identities = self._hub.identities
        for written in self._store.scan(WrittenIdentity):
            key = written.key
            if key in kept:
                continue
            if identities.has(key):
                if written.created == identities.document(key)["generationId"]:
                    identities.delete(key, _ANY)
                    self._applied.deleted += 1
                else:
                    nothing = WrittenIdentity(key, None, {}, {})
                    self._applied.changed += self._merge_twin(written, nothing)
            self._store.commit(delete=((WrittenIdentity, key),))

    # --- CAs

    def _put_authority(self, entry: CertificateEntry) -> None:
        """Register a CA. One that was verified meanwhile stays verified."""
        from emulator.hub.authorities import certificate

        key, text = key_of(entry.name), str(entry.certificate)
        before = self._store.get(Authority, key)
        same = before is not None and before.certificate == certificate.der(text)
        if before is not None and same and (before.verified or not entry.verified):
            return
        properties = {"certificate": text, "isVerified": entry.verified}
        self._hub.authorities.put(entry.name, {"properties": properties}, _ANY)
        if before is None:
            self._store.commit(put=(WrittenAuthority(key),))
            self._applied.created += 1
        else:
            self._applied.changed += 1

    def _delete_authorities(self, kept: set[AuthorityKey]) -> None:
        for written in self._store.scan(WrittenAuthority):
            key = written.key
            if key in kept:
                continue
            if self._store.get(Authority, key) is not None:
                self._hub.authorities.delete(key.name, _ANY)
                self._applied.deleted += 1
            self._store.commit(delete=((WrittenAuthority, key),))

    # --- configurations

    async def _put_configuration(self, entry: ConfigurationEntry, work: Work) -> None:
        key, body = ConfigurationKey(entry.id), entry.members()
        before = self._store.get(Configuration, key)
        if before is not None:
            wanted = await _parse(key, body, work, before.created)
            if _settable(wanted) == _settable(before):
                return
            if wanted.content.document() == before.content.document():
                await self._hub.configurations.put(key.id, body, _ANY)
                self._applied.changed += 1
                return
            if self._store.get(WrittenConfiguration, key) is None:
                raise ArgumentInvalid("The content of a configuration can't change. Use another id")
            # The content of a configuration never changes (seen on a real hub).
            await self._hub.configurations.delete(key.id, _ANY)
            self._applied.deleted += 1
        await self._hub.configurations.put(key.id, body, IfMatch(None))
        self._store.commit(put=(WrittenConfiguration(key),))
        self._applied.created += 1

    async def _delete_configurations(self, kept: set[str]) -> None:
        for written in self._store.scan(WrittenConfiguration):
            key = written.key
            if key.id in kept:
                continue
            if self._store.get(Configuration, key) is not None:
                await self._hub.configurations.delete(key.id, _ANY)
                self._applied.deleted += 1
            self._store.commit(delete=((WrittenConfiguration, key),))


def _member_of(error: HubError, key: IdentityKey, entry: IdentityEntry) -> str:
    """Return the member that an error is about, with a dot; empty if that is unknown."""
    empty = twins.create(key, NEVER)
    checks: Mapping[str, Callable[[], object]] = {
        ".id": lambda: check_id(key.module_id or key.device_id),
        ".primaryKey": lambda: entry.keys,
        ".tags": lambda: writes.patch(empty, {"tags": entry.tags}, NEVER),
        ".desired": lambda: writes.patch(empty, {"properties": {"desired": entry.desired}}, NEVER),
    }
    for name, check_member in checks.items():
        try:
            check_member()
        except HubError as found:
            if found.text == error.text:
                return name
    return ""


def _members(entry: IdentityEntry) -> JsonObject:
    """Return the members of an identity's document that an entry names, without credentials."""
    found: JsonObject = {}
    if isinstance(entry, ModuleEntry):
        named = {"managedBy": entry.managed_by}
    else:
        named = {"status": entry.status, "statusReason": entry.status_reason}
        if entry.iot_edge is not UNSET:
            found["capabilities"] = {"iotEdge": entry.iot_edge}
    return found | {name: value for name, value in named.items() if value is not UNSET}


def _patch(values: Any, old: Any, new: Any) -> JsonObject:
    """Return the merge patch that brings values from an old file to a new one."""
    patch: JsonObject = {}
    for name, there in values.items():
        if name not in old or name in new:
            continue
        if isinstance(there, dict) and isinstance(old[name], dict):
            below = _patch(there, old[name], {})
            if below and below.keys() == there.keys() and not any(below.values()):
                patch[name] = None  # nothing of it is left
            elif below:
                patch[name] = below
        else:
            patch[name] = None
    for name, wanted in new.items():
        there, before = values.get(name), old.get(name)
        if isinstance(wanted, dict) and isinstance(there, dict):
            below = _patch(there, before if isinstance(before, dict) else {}, wanted)
            if below:
                patch[name] = below
        elif name in values if wanted is None else name not in values or not equal(there, wanted):
            patch[name] = wanted
    return patch


async def _parse(
    key: ConfigurationKey, body: JsonObject, work: Work, created: datetime
) -> Configuration:
    await records.parse_queries(body, work)
    content = await records.parse_content(body, work)
    return records.create(key, body, created, content)


def _settable(configuration: Configuration) -> JsonObject:
    document = configuration.document({}, {})
    return {name: value for name, value in document.items() if name not in _OF_THE_HUB}
