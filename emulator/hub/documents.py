"""The JSON documents that services see: of an identity, and of its twin.

Members stand in the order in which a real hub wrote them.
"""

from __future__ import annotations

from emulator.hub.connections import Presence
from emulator.hub.identities import Authentication, Identity
from emulator.hub.jsontext import JsonObject
from emulator.hub.times import NEVER, iso
from emulator.hub.twins import Twin


def device(
    identity: Identity, presence: Presence, pending: int, *, just_created: bool = False
) -> JsonObject:
    """Write a device identity, its keys included (IoT Hub docs: identity registry).

    The answer to a create differs a little: a time that never was has no Z, and the parent scopes
    are there though empty (seen on a real hub). `pending` counts its cloud-to-device messages.
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
    if just_created:
        never = iso(NEVER)
        document = {
            name: "0001-01-01T00:00:00" if value == never else value
            for name, value in document.items()
        }
        document["parentScopes"] = []
    return document


def module(identity: Identity, presence: Presence) -> JsonObject:
    """Write a module identity: it has no status of its own (IoT Hub docs: module twins)."""
    return {
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


def twin(identity: Identity, twin: Twin, presence: Presence, pending: int) -> JsonObject:
    """Write the twin of a device or module as a service sees it (IoT Hub docs: device twins)."""
    key = identity.key
    document: JsonObject = {"deviceId": key.device_id}
    if key.module_id is not None:
        document["moduleId"] = key.module_id
    document |= {"etag": twin.etag, "deviceEtag": identity.etag, "status": identity.status}
    if identity.status_reason is not None:
        document["statusReason"] = identity.status_reason
    thumbprints = identity.authentication.thumbprints
    document |= {
        "statusUpdateTime": iso(identity.status_updated),
        "connectionState": _connection_state(presence),
        "lastActivityTime": iso(presence.last_activity),
        "cloudToDeviceMessageCount": pending,
        "authenticationType": identity.authentication.type,
        "x509Thumbprint": {
            "primaryThumbprint": thumbprints.primary if thumbprints else None,
            "secondaryThumbprint": thumbprints.secondary if thumbprints else None,
        },
        "modelId": identity.model_id,
        "version": twin.version,
    }
    if twin.tags:
        document["tags"] = twin.tags
    document["properties"] = {
        "desired": twin.desired.service_view(),
        "reported": twin.reported.service_view(),
    }
    if key.module_id is None:
        document["capabilities"] = {"iotEdge": identity.iot_edge}
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
