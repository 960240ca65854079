"""Writes to a twin: a service's patch or replacement, and a device's report.

Pure functions, which return the change with the new twin in it. The rules are from IoT Hub docs:
device twins, and from a real hub.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import structs

from emulator.hub.core.digits import whole_number
from emulator.hub.core.errors import ArgumentInvalid, PreconditionFailed
from emulator.hub.core.json import JsonObject, loads
from emulator.hub.core.members import Form
from emulator.hub.core.times import iso
from emulator.hub.twins.twin import Section, Twin, TwinChanged
from emulator.hub.twins.validation import check_object, check_part, check_size

# The members of a twin, which services send back. Every other member is an error (seen on a real
# hub for the root).
TWIN = Form(
    *("deviceId", "moduleId", "etag", "deviceEtag", "status", "statusReason", "statusUpdateTime"),
    *("connectionState", "lastActivityTime", "cloudToDeviceMessageCount", "authenticationType"),
    *("x509Thumbprint", "modelId", "version", "tags", "configurations", "capabilities"),
    *("deviceScope", "parentScopes"),
    closed=True,
    properties=Form("desired", "reported", closed=True),
)


def patch(twin: Twin, body: object, now: datetime) -> TwinChanged:
    """Merge a service's patch into tags and desired properties (IoT Hub docs: device twins).

    A part in the patch is written, and counted, even if it changes nothing. A part that is null
    loses all its members, as in any merge patch; if `properties` is null, it counts as missing. A
    patch without a part writes nothing, so the etag stays.

    Args:
        twin: the old twin.
        body: `{"tags": {…}, "properties": {"desired": {…}}}`; the other members of a twin are
            ignored, because SDKs send a whole twin.
        now: the time in UTC.

    Raises:
        ArgumentInvalid: the patch is invalid; nothing of it is applied.
        DeviceModelMaxPropertiesExceeded: a section would be too large.
        GenericBadRequest: it has a member that no twin has.
    """
    parts = _service_parts(body)
    if not parts:
        return TwinChanged(twin, now, twin)
    tags, desired, tag_changes, changes, notice = twin.tags, twin.desired, None, None, None
    if "tags" in parts:
        tag_changes = check_part("tags", _or_removal(parts["tags"], tags))
    if "desired" in parts:
        changes = check_part("desired", _or_removal(parts["desired"], desired.values))
    if tag_changes is not None:
        tags = _merged("tags", tags, tag_changes)
    if changes is not None:
        desired = _write_section("desired", desired, changes, now)
        notice = {**changes, "$version": desired.version}
    written = structs.replace(twin, tags=tags, desired=desired, revision=twin.revision + 1)
    return TwinChanged(written, now, twin, tags=tag_changes, desired=notice)


def replace(twin: Twin, body: object, now: datetime) -> TwinChanged:
    """Replace tags and desired properties; a missing part becomes empty (seen on a real hub).

    Args:
        twin: the old twin.
        body: as for `patch`; a part that is null counts as missing.
        now: the time in UTC.

    Returns:
        The change. Its notification has all desired properties, and null for each that is gone
        (the hub's team in azure-iot-sdk-csharp#954; below the root by the same rule).

    Raises:
        ArgumentInvalid: the body is invalid, or has a null within a part (seen on a real hub).
        DeviceModelMaxPropertiesExceeded: a section would be too large.
        GenericBadRequest: it has a member that no twin has.
    """
    parts = {name: part for name, part in _service_parts(body).items() if part is not None}
    tags = check_part("tags", parts.get("tags", {}), nulls=False)
    members = check_part("desired", parts.get("desired", {}), nulls=False)
    tags = _merged("tags", {}, tags)
    emptied = Section({}, {}, twin.desired.version)
    desired = _write_section("desired", emptied, members, now)
    notice = {**overwriting(twin.desired.values, members), "$version": desired.version}
    written = structs.replace(twin, tags=tags, desired=desired, revision=twin.revision + 1)
    return TwinChanged(written, now, twin, tags=tags, desired=notice, replaced=True)


def report(twin: Twin, body: object, now: datetime, expected_version: int | None) -> TwinChanged:
    """Merge a device's patch into its reported properties; the etag stays.

    Args:
        twin: the old twin.
        body: the members to merge.
        now: the time in UTC.
        expected_version: the version that the reported properties must have; None is any version.

    Raises:
        PreconditionFailed: the reported properties have another version.
        ArgumentInvalid: the patch is invalid, also if it names `$version` (seen on a real hub);
            nothing of it is applied.
        DeviceModelMaxPropertiesExceeded: the properties would be too large.
    """
    version = twin.reported.version
    if expected_version not in (None, version):
        raise PreconditionFailed(
            f"The reported properties are at version {version}, not {expected_version}"
        )
    changes = check_part("reported", body)
    reported = _write_section("reported", twin.reported, changes, now)
    return TwinChanged(structs.replace(twin, reported=reported), now, twin, reported=changes)


def parse_report(payload: bytes, version: str | None) -> tuple[object, int | None]:
    """Parse what a device sends to report: a patch, and the version that it expects.

    Raises:
        ArgumentInvalid: the patch is not JSON, or the version is not a number.
    """
    try:
        patch = loads(payload)
    except ValueError as error:
        raise ArgumentInvalid(f"The patch is not JSON: {error}") from None
    expected = None if version is None else whole_number(version)
    if version is not None and expected is None:
        raise ArgumentInvalid(f"The version is not a number: {version}")
    return patch, expected


def overwriting(old: Any, new: Any) -> Any:
    """Return a value that, merged over `old`, makes `new`: with null for each member that is gone.

    Members that stay are in it too, at each level.
    """
    if not isinstance(new, dict):
        return new
    known = old if isinstance(old, dict) else {}
    return {
        name: overwriting(known.get(name), new[name]) if name in new else None
        for name in known | new
    }


def _service_parts(body: object) -> JsonObject:
    """Return the parts in the body that a service can write: `tags` and `desired`."""
    document = TWIN.read(check_object(body, "the body"))
    parts = {"tags": document["tags"]} if "tags" in document else {}
    properties = document.get("properties")
    if properties is not None:
        properties = check_object(properties, "'properties'")
        if "desired" in properties:
            parts["desired"] = properties["desired"]
    return parts


def _or_removal(part: object, current: JsonObject) -> object:
    """Replace a null by the removal of each member, so that a device sees which members it lost."""
    return dict.fromkeys(current) if part is None else part


def _merged(name: str, values: JsonObject, changes: JsonObject) -> JsonObject:
    values = _merge(values, changes)
    check_size(name, values)
    return values


def _write_section(name: str, section: Section, changes: JsonObject, now: datetime) -> Section:
    values = _merged(name, section.values, changes)
    version = section.version + 1
    mark: JsonObject = {"$lastUpdated": iso(now)}
    if name == "desired":  # reported properties have dates only (seen on a real hub)
        mark["$lastUpdatedVersion"] = version
    return Section(values, _touch(section.metadata, changes, mark), version)


def _merge(document: JsonObject, changes: JsonObject) -> JsonObject:
    """Apply a merge patch (RFC 7386); only the objects on its paths are copied."""
    result = dict(document)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = _copy(value)
    return result


def _copy(value: Any) -> Any:
    """Copy arrays and their elements, so that the twin shares nothing with the request."""
    if isinstance(value, list):
        return [_copy(element) for element in value]
    if isinstance(value, dict):
        return {key: _copy(member) for key, member in value.items()}
    return value


def _touch(metadata: JsonObject, changes: JsonObject, mark: JsonObject) -> JsonObject:
    """Date every node on the paths of a patch, and delete the nodes that it removes.

    The node of a leaf has no members. So, if an object replaces a leaf, it can keep the node.
    """
    result = {**metadata, **mark}
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _touch(result.get(key, {}), value, mark)
        else:
            result[key] = mark
    return result
