"""The bodies of events about twins (IoT Hub docs: non-telemetry events; captures of real hubs)."""

from __future__ import annotations

from emulator.hub.core.json import JsonObject
from emulator.hub.twins.twin import Section, Twin, TwinChanged


def replaced(twin: Twin) -> JsonObject:
    """Return the whole twin, after a replace."""
    return {
        **_ids(twin),
        "etag": twin.etag,
        "version": twin.version,
        "tags": twin.tags,
        "properties": _sections(twin),
    }


def created_or_deleted(twin: Twin) -> JsonObject:
    """Return the twin of an identity that was created or deleted: without tags if it has none."""
    body = replaced(twin)
    if not twin.tags:
        del body["tags"]
    return body


def updated(change: TwinChanged) -> JsonObject:
    """Return what was written, with its metadata and versions."""
    twin = change.twin
    body: JsonObject = {"version": twin.version}
    if change.tags is not None:
        body["tags"] = change.tags
    parts = {
        "desired": (twin.desired, change.desired),
        "reported": (twin.reported, change.reported),
    }
    properties = {
        name: _touched(section, patch)
        for name, (section, patch) in parts.items()
        if patch is not None
    }
    if properties:
        body["properties"] = properties
    return body


def _ids(twin: Twin) -> JsonObject:
    module = twin.key.module_id
    return {"deviceId": twin.key.device_id, **({} if module is None else {"moduleId": module})}


def _sections(twin: Twin) -> JsonObject:
    return {"desired": twin.desired.service_view(), "reported": twin.reported.service_view()}


def _touched(section: Section, patch: JsonObject) -> JsonObject:
    values = {name: value for name, value in patch.items() if name != "$version"}
    metadata = _touched_metadata(section.metadata, values)
    return {**values, "$metadata": metadata, "$version": section.version}


def _touched_metadata(metadata: JsonObject, patch: JsonObject) -> JsonObject:
    """Return the dates of the root and of the members in a patch; what it removes has none."""
    own = {name: value for name, value in metadata.items() if name.startswith("$")}
    below = {
        name: _touched_metadata(metadata[name], value if isinstance(value, dict) else {})
        for name, value in patch.items()
        if name in metadata
    }
    return own | below
