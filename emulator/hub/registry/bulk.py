"""Many identities at once: what a bulk call and the lines of an import file ask for.

An item names one device or module, and what is to be done with it (IoT Hub docs: import and export
identities in bulk; swagger of the service API: ExportImportDevice).
"""

from __future__ import annotations

import enum
from collections import Counter

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeserializationError,
    DeviceDefinedMultipleTimes,
    HubError,
    PreconditionFailed,
    TooManyDevices,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.identities import Identities
from emulator.hub.registry.twins import Twins

_ANY = IfMatch("*")

# The members of an item that say what the identity is to be.
_IDENTITY_MEMBERS = (
    "status",
    "statusReason",
    "authentication",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "managedBy",
)
# Those that say what its twin is to be.
_TWIN_MEMBERS = ("tags", "properties")


class ImportMode(enum.Enum):
    """What is to be done with an item; clients spell it in any case.

    The modes with `createOrUpdate` come from import files alone: the swagger doesn't have them.
    """

    CREATE = "create"
    CREATE_OR_UPDATE = "createOrUpdate"
    CREATE_OR_UPDATE_IF_MATCH_ETAG = "createOrUpdateIfMatchETag"
    UPDATE = "update"
    UPDATE_IF_MATCH_ETAG = "updateIfMatchETag"
    DELETE = "delete"
    DELETE_IF_MATCH_ETAG = "deleteIfMatchETag"
    UPDATE_TWIN = "updateTwin"
    UPDATE_TWIN_IF_MATCH_ETAG = "updateTwinIfMatchETag"

    @classmethod
    def parse(cls, value: object) -> ImportMode:
        """Read the `importMode` of an item.

        Raises:
            ArgumentInvalid: it is none.
        """
        mode = _MODES.get(value.lower()) if isinstance(value, str) else None
        if mode is None:
            raise ArgumentInvalid(f"importMode is none: {value}")
        return mode


_MODES = {mode.value.lower(): mode for mode in ImportMode}

# What an item that names no mode asks for: so it is in an import file (IoT Hub docs: import and
# export identities in bulk), and of a bulk call nothing else is known.
_DEFAULT_MODE = ImportMode.CREATE_OR_UPDATE
# Modes that do another's work on what is there.
_CREATE_OR_UPDATE = {
    ImportMode.CREATE_OR_UPDATE: ImportMode.UPDATE,
    ImportMode.CREATE_OR_UPDATE_IF_MATCH_ETAG: ImportMode.UPDATE_IF_MATCH_ETAG,
}


class Bulk:
    """Applies items that each create, update or delete an identity, or write a twin."""

    def __init__(self, identities: Identities, twins: Twins) -> None:
        self._identities = identities
        self._twins = twins

    def apply(self, item: object, *, default_mode: str | None = None) -> None:
        """Do what one item asks for.

        Its tags and desired properties are written together with its identity, in one commit. They
        are merged into a twin that exists. The docs say that identity and twin are "overwritten";
        a merge loses no data, if a real hub does something else. Reported properties belong to the
        device, so they are ignored.

        Args:
            default_mode: the mode of an item that names none; without it such an item is refused.

        Raises:
            DeserializationError: it is no object.
            SystemModuleModifyUnauthorizedAccess: it would change a module that is the hub's own.
            ArgumentInvalid: it names no identity, or no mode; or a member of it is not valid.
            PreconditionFailed: its etag is stale, or missing where the mode needs it.
            HubError: what else `Identities.create`, `update`, `delete` and `Twins.patch` raise.
        """
        if not isinstance(item, dict):
            raise DeserializationError("The item is not an object")
        key = _key(item)
        given = item.get("importMode")
        mode = ImportMode.parse(default_mode if given is None else given)
        if mode in _CREATE_OR_UPDATE:
            mode = _CREATE_OR_UPDATE[mode] if self._identities.has(key) else ImportMode.CREATE
        match mode:
            case ImportMode.CREATE:
                self._identities.create(key, _identity(key, item), twin=_twin(item))
            case ImportMode.UPDATE:
                self._identities.update(key, _identity(key, item), _ANY, twin=_twin(item))
            case ImportMode.UPDATE_IF_MATCH_ETAG:
                self._identities.update(
                    key, _identity(key, item), _etag(item, "eTag"), twin=_twin(item)
                )
            case ImportMode.DELETE:
                self._identities.delete(key, _ANY)
            case ImportMode.DELETE_IF_MATCH_ETAG:
                # Alone of its kind it goes through without an etag (seen on a real hub).
                absent = item.get("eTag") in (None, "")
                self._identities.delete(key, _ANY if absent else _etag(item, "eTag"))
            case ImportMode.UPDATE_TWIN:
                self._twins.patch(key, _twin(item) or {}, _ANY)
            case ImportMode.UPDATE_TWIN_IF_MATCH_ETAG:
                self._twins.patch(key, _twin(item) or {}, _etag(item, "twinETag"))

    def run(self, body: object) -> JsonObject:
        """Apply the items of a bulk call, each on its own (swagger: bulk registry).

        Items that name the same identity are all refused: which of them is meant can't be told.

        Returns:
            `{"isSuccessful", "errors": [{"deviceId", "errorCode", "errorStatus", "moduleId",
            "operation"}], "warnings": []}`; a device has no `moduleId`.

        Raises:
            DeserializationError: it is no array of objects. Nothing is applied.
            TooManyDevices: there are more than 100 items. Nothing is applied.
        """
        if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
            raise DeserializationError("The body is not an array of objects")
        if len(body) > limits.BULK_ITEMS:
            raise TooManyDevices(f"A bulk call has {limits.BULK_ITEMS} items at most")
        named = Counter(_name(item) for item in body)
        errors = []
        for item in body:
            try:
                key = _key(item)
                if named[_name(item)] > 1:
                    raise DeviceDefinedMultipleTimes(f"{key} is there more than once")
                self.apply(item, default_mode=_DEFAULT_MODE.value)
            except HubError as error:
                errors.append(_error(item, error))
        return {"isSuccessful": not errors, "errors": errors, "warnings": []}


def _key(item: JsonObject) -> IdentityKey:
    device_id, module_id = item.get("id"), item.get("moduleId") or None
    if not isinstance(device_id, str) or not isinstance(module_id, str | None):
        raise ArgumentInvalid("An item's id is a string, and so is its moduleId if it has one")
    return IdentityKey(device_id, module_id)


def _name(item: JsonObject) -> bytes:
    """Tell which identity an item names, even if that is none."""
    return dumps([item.get("id"), item.get("moduleId") or None])


def _identity(key: IdentityKey, item: JsonObject) -> JsonObject:
    """Write the identity that an item describes as a request to its own route would have it."""
    ids = {"deviceId": key.device_id, "moduleId": key.module_id}
    return ids | {name: item[name] for name in _IDENTITY_MEMBERS if name in item}


def _twin(item: JsonObject) -> JsonObject | None:
    """Pick what an item says of the twin; None if that is nothing."""
    parts = {name: item[name] for name in _TWIN_MEMBERS if item.get(name) is not None}
    return parts or None


def _etag(item: JsonObject, name: str) -> IfMatch:
    """Read a precondition.

    Raises:
        ArgumentInvalid: it is not a string.
        PreconditionFailed: there is none.
    """
    value = item.get(name)
    if not isinstance(value, str | None):
        raise ArgumentInvalid(f"{name} is not a string")
    if_match = IfMatch.parse(value)
    if if_match.absent:
        raise PreconditionFailed(f"PreconditionFailed, {name} missing.")
    return if_match


def _error(item: JsonObject, error: HubError) -> JsonObject:
    """Write what is wrong with an item; the code is the symbolic one (swagger)."""
    document = {
        "deviceId": item.get("id"),
        "errorCode": error.name,
        "errorStatus": error.text or error.name,
    }
    if item.get("moduleId"):
        document["moduleId"] = item["moduleId"]
    return {**document, "operation": item.get("importMode") or _DEFAULT_MODE.value}
