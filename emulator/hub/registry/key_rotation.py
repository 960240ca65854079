"""New symmetric keys for many devices and modules at once.

Forms and statuses are those that azure-iot-cli-extension sends and reads (source, and its tests
against a real hub).
"""

from __future__ import annotations

from collections import Counter

from emulator.hub.access.keys import key_document
from emulator.hub.core import errors, limits, members
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.registry.bulk import identity_key
from emulator.hub.registry.identities import Identities

_REQUEST = members.Form("policyKey", "devices")
_ITEM = members.Form("id", "moduleId")
# The values of `policyKey`, with the keys that they replace. Their letter case does not matter.
_POLICY_KEYS = {
    "primaryKey": ("primaryKey",),
    "secondaryKey": ("secondaryKey",),
    "both": ("primaryKey", "secondaryKey"),
}
_SPELLED = {name.lower(): name for name in _POLICY_KEYS}


class KeyRotation:
    """Replaces keys of identities."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def run(self, body: object) -> JsonObject:
        """Replace keys of identities, each on its own; a key that is not named stays.

        Args:
            body: `{"policyKey": "primaryKey", "secondaryKey" or "both",
                "devices": [{"id", "moduleId"}]}`; without a moduleId an item means a device.

        Returns:
            `{"policyKey", "rotatedKeys": [{"id", "moduleId", "primaryKey", "secondaryKey"}],
            "errors": [{"id", "moduleId", "errorCode", "errorStatus"}]}`. Only new keys are in it;
            the others are null.

        Raises:
            DeserializationError: the body is not an object, or its devices are not an array of
                objects; nothing is changed.
            InvalidPolicyKey, TooManyDevices: nothing is changed.
        """
        body = members.document(body, _REQUEST)
        policy_key = _policy_key(body)
        items = _items(body)
        named = Counter(map(dumps, items))
        rotated, failures = [], []
        for item in items:
            try:
                key = identity_key(item)
                if named[dumps(item)] > 1:
                    raise errors.DeviceDefinedMultipleTimes(f"Several items have the id {key}")
                keys = self._identities.renew_keys(key, _POLICY_KEYS[policy_key])
                rotated.append({**item, **key_document(None), **keys})
            except errors.HubError as error:
                # Whether a real hub writes the code as a number or as a name is unknown.
                status = errors.error_text(error)
                failures.append({**item, "errorCode": error.code, "errorStatus": status})
        return {"policyKey": policy_key, "rotatedKeys": rotated, "errors": failures}


def _policy_key(body: JsonObject) -> str:
    given = body.get("policyKey")
    name = _SPELLED.get(given.lower()) if isinstance(given, str) else None
    if name is None:
        raise errors.InvalidPolicyKey(f"Invalid policyKey: {given}. Use {', '.join(_POLICY_KEYS)}")
    return name


def _items(body: JsonObject) -> list[JsonObject]:
    """Return the ids of each item; a missing one is None."""
    items = body.get("devices")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise errors.DeserializationError("devices is not an array of objects")
    if len(items) > limits.BULK_ITEMS:
        raise errors.TooManyDevices(
            f"The call has {len(items)} items. {limits.BULK_ITEMS} are allowed"
        )
    read = map(_ITEM.read, items)
    return [{"id": item.get("id"), "moduleId": item.get("moduleId") or None} for item in read]
