"""The JSON documents of identities and twins for services.

Members have the order in which a real hub wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from emulator.hub.access.keys import key_document
from emulator.hub.core.json import UNDEFINED, JsonObject
from emulator.hub.core.times import NEVER, iso
from emulator.hub.identities.identity import Authentication, Identity
from emulator.hub.links.links import Presence
from emulator.hub.twins.twin import Twin


class TwinRow(Struct, frozen=True):
    """An identity and its twin, as services see and query them.

    Args:
        identity: the identity.
        twin: its twin.
        presence: its presence.
        pending: the number of its cloud-to-device messages.
    """

    identity: Identity
    twin: Twin
    presence: Presence
    pending: int


def identity(row: TwinRow, *, just_created: bool = False) -> JsonObject:
    """Return a device or module identity, with its keys (IoT Hub docs: identity registry).

    Some members exist only for devices, others only for modules (IoT Hub docs: module twins). The
    answer to a create is a little different: a time that never was has no Z, and a device has its
    parent scopes even if it has none (seen on a real hub).
    """
    identity, presence = row.identity, row.presence
    is_device = identity.key.module_id is None

    def time(value: datetime) -> str:
        return "0001-01-01T00:00:00" if just_created and value == NEVER else iso(value)

    def of_device(value: Any) -> Any:
        return value if is_device else UNDEFINED

    parents = list(identity.scopes.parents)
    members = {
        "moduleId": identity.key.module_id or UNDEFINED,
        "managedBy": UNDEFINED if is_device else identity.managed_by,
        "deviceId": identity.key.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": _connection_state(presence),
        "status": of_device(identity.status),
        "statusReason": of_device(identity.status_reason),
        "connectionStateUpdatedTime": time(presence.state_updated),
        "statusUpdatedTime": of_device(time(identity.status_updated)),
        "lastActivityTime": time(presence.last_activity),
        "cloudToDeviceMessageCount": row.pending,
        "authentication": _authentication(identity.authentication),
        "capabilities": of_device({"iotEdge": identity.iot_edge}),
        "deviceScope": identity.scopes.device or UNDEFINED,
        "parentScopes": of_device(parents if parents or just_created else UNDEFINED),
    }
    return {name: value for name, value in members.items() if value is not UNDEFINED}


# The members of a twin. A document has no member whose value is UNDEFINED.
TWIN_MEMBERS: Mapping[str, Callable[[TwinRow], Any]] = {
    "deviceId": lambda row: row.identity.key.device_id,
    "moduleId": lambda row: row.identity.key.module_id or UNDEFINED,
    "etag": lambda row: row.twin.etag,
    "deviceEtag": lambda row: row.identity.etag,
    "status": lambda row: row.identity.status,
    "statusReason": lambda row: (
        UNDEFINED if row.identity.status_reason is None else row.identity.status_reason
    ),
    "statusUpdateTime": lambda row: iso(row.identity.status_updated),
    "connectionState": lambda row: _connection_state(row.presence),
    "lastActivityTime": lambda row: iso(row.presence.last_activity),
    "cloudToDeviceMessageCount": lambda row: row.pending,
    "authenticationType": lambda row: row.identity.authentication.type,
    "x509Thumbprint": lambda row: _x509_thumbprint(row.identity.authentication),
    "modelId": lambda row: row.identity.model_id,
    "version": lambda row: row.twin.version,
    "tags": lambda row: row.twin.tags or UNDEFINED,
    "properties": lambda row: {
        "desired": row.twin.desired.service_view(),
        "reported": row.twin.reported.service_view(),
    },
    "capabilities": lambda row: (
        {"iotEdge": row.identity.iot_edge} if row.identity.key.module_id is None else UNDEFINED
    ),
    "deviceScope": lambda row: row.identity.scopes.device or UNDEFINED,
    "parentScopes": lambda row: list(row.identity.scopes.parents) or UNDEFINED,
}


# Queries also read a part of a section without the whole (see `query.Members`).
QUERY_MEMBERS: Mapping[str, Callable[[TwinRow], Any]] = {
    **TWIN_MEMBERS,
    "properties.desired": lambda row: row.twin.desired.service_view(),
    "properties.desired.*": lambda row: row.twin.desired.values,
    "properties.desired.$metadata": lambda row: row.twin.desired.metadata,
    "properties.desired.$version": lambda row: row.twin.desired.version,
    "properties.reported": lambda row: row.twin.reported.service_view(),
    "properties.reported.*": lambda row: row.twin.reported.values,
    "properties.reported.$metadata": lambda row: row.twin.reported.metadata,
    "properties.reported.$version": lambda row: row.twin.reported.version,
}


def twin(row: TwinRow) -> JsonObject:
    """Return the twin of a device or module for services (IoT Hub docs: device twins)."""
    values = ((name, read(row)) for name, read in TWIN_MEMBERS.items())
    return {name: value for name, value in values if value is not UNDEFINED}


def _connection_state(presence: Presence) -> str:
    return "Connected" if presence.connected else "Disconnected"


def _authentication(authentication: Authentication) -> JsonObject:
    return {
        "symmetricKey": key_document(authentication.keys),
        "x509Thumbprint": _x509_thumbprint(authentication),
        "type": authentication.type,
    }


def _x509_thumbprint(authentication: Authentication) -> JsonObject:
    primary, secondary = authentication.thumbprints or (None, None)
    return {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
