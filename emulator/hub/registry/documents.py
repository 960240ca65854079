"""The JSON documents that services see: of an identity, and of its twin.

Members stand in the order in which a real hub wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from emulator.hub.core.json import UNDEFINED, JsonObject
from emulator.hub.core.times import NEVER, iso
from emulator.hub.identities.identity import Authentication, Identity
from emulator.hub.links.links import Presence
from emulator.hub.twins.twin import Twin


def device(
    identity: Identity, presence: Presence, pending: int, *, just_created: bool = False
) -> JsonObject:
    """Write a device identity, its keys included (IoT Hub docs: identity registry).

    The answer to a create differs a little: a time that never was has no Z, and the parent scopes
    are there though empty (seen on a real hub). Otherwise scopes that it hasn't are left out.
    `pending` counts its cloud-to-device messages.
    """
    document: JsonObject = {
        "deviceId": identity.key.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": _connection_state(presence),
        "status": identity.status,
        "statusReason": identity.status_reason,
        "connectionStateUpdatedTime": iso(presence.state_updated),
        "statusUpdatedTime": iso(identity.status_updated),
        "lastActivityTime": iso(presence.last_activity),
        "cloudToDeviceMessageCount": pending,
        "authentication": _authentication(identity.authentication),
        "capabilities": {"iotEdge": identity.iot_edge},
    }
    if identity.scopes.device is not None:
        document["deviceScope"] = identity.scopes.device
    if identity.scopes.parents or just_created:
        document["parentScopes"] = list(identity.scopes.parents)
    return _as_created(document) if just_created else document


def module(identity: Identity, presence: Presence, *, just_created: bool = False) -> JsonObject:
    """Write a module identity: it has no status of its own (IoT Hub docs: module twins).

    In the answer to a create, a time that never was has no Z (seen on a real hub).
    """
    document: JsonObject = {
        "moduleId": identity.key.module_id,
        "managedBy": identity.managed_by,
        "deviceId": identity.key.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": _connection_state(presence),
        "connectionStateUpdatedTime": iso(presence.state_updated),
        "lastActivityTime": iso(presence.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authentication": _authentication(identity.authentication),
    }
    return _as_created(document) if just_created else document


def _as_created(document: JsonObject) -> JsonObject:
    never = iso(NEVER)
    return {
        name: "0001-01-01T00:00:00" if name.endswith("Time") and value == never else value
        for name, value in document.items()
    }


class TwinRow(Struct, frozen=True):
    """A twin, with what else the hub knows of its identity: what services see, and query.

    `pending` counts its cloud-to-device messages.
    """

    identity: Identity
    twin: Twin
    presence: Presence
    pending: int


def _x509_thumbprint(row: TwinRow) -> JsonObject:
    thumbprints = row.identity.authentication.thumbprints
    return {
        "primaryThumbprint": thumbprints.primary if thumbprints else None,
        "secondaryThumbprint": thumbprints.secondary if thumbprints else None,
    }


# The members of a twin, and how each is read; one that is UNDEFINED is left out.
TWIN_MEMBERS: Mapping[str, Callable[[TwinRow], Any]] = MappingProxyType(
    {
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
        "x509Thumbprint": _x509_thumbprint,
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
        "deviceScope": lambda row: (
            UNDEFINED if row.identity.scopes.device is None else row.identity.scopes.device
        ),
        "parentScopes": lambda row: list(row.identity.scopes.parents) or UNDEFINED,
    }
)


# The same for queries, which read a part of a section without the whole (see `query.Members`).
QUERY_MEMBERS: Mapping[str, Callable[[TwinRow], Any]] = MappingProxyType(
    {
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
)


_TWIN_READERS = tuple(TWIN_MEMBERS.items())


def twin(row: TwinRow) -> JsonObject:
    """Write the twin of a device or module as a service sees it (IoT Hub docs: device twins)."""
    document: JsonObject = {}
    for name, read in _TWIN_READERS:
        value = read(row)
        if value is not UNDEFINED:
            document[name] = value
    return document


def _connection_state(presence: Presence) -> str:
    return "Connected" if presence.connected else "Disconnected"


def _authentication(authentication: Authentication) -> JsonObject:
    keys, thumbprints = authentication.keys, authentication.thumbprints
    return {
        "symmetricKey": {
            "primaryKey": keys.primary if keys else None,
            "secondaryKey": keys.secondary if keys else None,
        },
        "x509Thumbprint": {
            "primaryThumbprint": thumbprints.primary if thumbprints else None,
            "secondaryThumbprint": thumbprints.secondary if thumbprints else None,
        },
        "type": authentication.type,
    }
