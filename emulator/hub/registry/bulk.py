"""Operations on many identities: the items of a bulk call, and the lines of an import file.

An item has the id of a device or module, and the operation on it (IoT Hub docs: import and export
identities in bulk; swagger of the service API: ExportImportDevice).
"""

from __future__ import annotations

import enum
from collections import Counter

from emulator.hub.core import errors, limits, members
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.slices import Slices
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.identities import Identities
from emulator.hub.registry.twins import Twins

_ANY = IfMatch("*")

# The members of an item, with those of its identity (swagger: ExportImportDevice).
ITEM = members.Form(
    *("id", "moduleId", "eTag", "importMode", "twinETag", "tags", "properties", "managedBy"),
    *("status", "statusReason", "deviceScope", "parentScopes", "authentication", "capabilities"),
)


class ImportMode(enum.Enum):
    """The operation of an item; clients write it in any letter case.

    Only import files have the modes with `createOrUpdate`: the swagger does not have them.
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
        """Parse the `importMode` of an item.

        Raises:
            ArgumentInvalid: the mode is unknown.
        """
        mode = _MODES.get(value.lower()) if isinstance(value, str) else None
        if mode is None:
            modes = ", ".join(each.value for each in cls)
            raise errors.ArgumentInvalid(f"Unknown importMode: {value}. Use one of {modes}")
        return mode


_MODES = {mode.value.lower(): mode for mode in ImportMode}

# The mode of an item without a mode: documented for import files (IoT Hub docs: import and export
# identities in bulk), and unknown for bulk calls.
_DEFAULT_MODE = ImportMode.CREATE_OR_UPDATE
# These modes update an identity that exists, and create a missing one.
_CREATE_OR_UPDATE = {
    ImportMode.CREATE_OR_UPDATE: ImportMode.UPDATE,
    ImportMode.CREATE_OR_UPDATE_IF_MATCH_ETAG: ImportMode.UPDATE_IF_MATCH_ETAG,
}


class Bulk:
    """Applies items: each of them creates, updates or deletes an identity, or writes a twin."""

    def __init__(self, identities: Identities, twins: Twins, slices: Slices) -> None:
        self._identities = identities
        self._twins = twins
        self._slices = slices

    def apply(self, item: object, *, default_mode: str | None = None) -> None:
        """Apply one item.

        Its tags and desired properties are written together with its identity, in one commit, and
        merged into a twin that exists. The docs say that identity and twin are "overwritten"; a
        merge loses no data, if a real hub does something else. Reported properties are ignored,
        because they belong to the device.

        Args:
            item: the item.
            default_mode: the mode of an item without a mode; None refuses such an item.

        Raises:
            DeserializationError: the item is not an object.
            SystemModuleModifyUnauthorizedAccess: the module is the hub's own.
            ArgumentInvalid: the id, the mode or another member is invalid.
            PreconditionFailed: the etag is stale.
            HubError: other errors of `Identities.create`, `update`, `delete` and `Twins.patch`.
        """
        if not isinstance(item, dict):
            raise errors.DeserializationError("The item is not an object")
        item = ITEM.read(item)
        key = identity_key(item)
        given = item.get("importMode")
        mode = ImportMode.parse(default_mode if given is None else given)
        if mode in _CREATE_OR_UPDATE:
            mode = _CREATE_OR_UPDATE[mode] if self._identities.has(key) else ImportMode.CREATE
        if_match = _if_match(mode, item)
        match mode:
            case ImportMode.CREATE:
                self._identities.create(key, _identity(key, item), twin=_twin(item))
            case ImportMode.UPDATE | ImportMode.UPDATE_IF_MATCH_ETAG:
                self._identities.update(key, _identity(key, item), if_match, twin=_twin(item))
            case ImportMode.DELETE | ImportMode.DELETE_IF_MATCH_ETAG:
                self._identities.delete(key, if_match)
            case ImportMode.UPDATE_TWIN | ImportMode.UPDATE_TWIN_IF_MATCH_ETAG:
                self._twins.patch(key, _twin(item) or {}, if_match)

    async def run(self, body: object) -> JsonObject:
        """Apply the items of a bulk call, each on its own (swagger: bulk registry).

        Items with the same identity are all refused, because their order has no meaning.

        Returns:
            `{"isSuccessful", "errors": [{"deviceId", "errorCode", "errorStatus", "moduleId",
            "operation"}], "warnings": []}`; a device has no `moduleId`.

        Raises:
            DeserializationError: the body is not an array of objects; nothing is applied.
            TooManyDevices: the body has more than 100 items; nothing is applied.
        """
        if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
            raise errors.DeserializationError("The body is not an array of objects")
        if len(body) > limits.BULK_ITEMS:
            raise errors.TooManyDevices(
                f"The bulk call has {len(body)} items. {limits.BULK_ITEMS} are allowed"
            )
        items = [ITEM.read(item) for item in body]
        named = Counter(_name(item) for item in items)
        failures, work = [], await self._slices.begin()
        for item in items:
            if work.over:
                await work.rest()
            try:
                key = identity_key(item)
                if named[_name(item)] > 1:
                    raise errors.DeviceDefinedMultipleTimes(f"Several items have the id {key}")
                self.apply(item, default_mode=_DEFAULT_MODE.value)
            except errors.HubError as error:
                failures.append(_failure(item, error))
        return {"isSuccessful": not failures, "errors": failures, "warnings": []}


def identity_key(item: JsonObject) -> IdentityKey:
    """Return the key that an item names; it can be unknown.

    Raises:
        ArgumentInvalid: the id or the moduleId is not a string.
    """
    device_id, module_id = item.get("id"), item.get("moduleId") or None
    if not isinstance(device_id, str) or not isinstance(module_id, str | None):
        raise errors.ArgumentInvalid("The id or the moduleId of the item is not a string")
    return IdentityKey(device_id, module_id)


def _name(item: JsonObject) -> bytes:
    """Return the id of an item in a comparable form, even if it is invalid."""
    return dumps([item.get("id"), item.get("moduleId") or None])


def _identity(key: IdentityKey, item: JsonObject) -> JsonObject:
    """Return an item in the form of a request to the identity's own route, with other members."""
    return {**item, "deviceId": key.device_id, "moduleId": key.module_id}


def _twin(item: JsonObject) -> JsonObject | None:
    """Return the members of an item for its twin, or None if it has no such member."""
    parts = {name: item[name] for name in ("tags", "properties") if item.get(name) is not None}
    return parts or None


def _if_match(mode: ImportMode, item: JsonObject) -> IfMatch:
    """Return the condition on the etag of an item; a missing etag passes (seen on a real hub).

    Raises:
        ArgumentInvalid: the etag is not a string.
    """
    if not mode.value.endswith("IfMatchETag"):
        return _ANY
    name = "twinETag" if mode is ImportMode.UPDATE_TWIN_IF_MATCH_ETAG else "eTag"
    if_match = IfMatch.parse(members.text(item, name))
    return _ANY if if_match.absent else if_match


def _failure(item: JsonObject, error: errors.HubError) -> JsonObject:
    """Return the error of an item.

    The swagger types its code as a name. But the Go client, whose tests run against a real hub,
    parses a number, and so do import jobs.
    """
    return {
        "deviceId": item.get("id"),
        "errorCode": error.code,
        "errorStatus": errors.error_text(error),
        **({"moduleId": item["moduleId"]} if item.get("moduleId") else {}),
        "operation": item.get("importMode") or _DEFAULT_MODE.value,
    }
