"""How a write changes a twin: a service's patch or replacement, and a device's report.

Pure functions: each takes the twin as it is, and returns the change with the new twin in it. The
rules are those of IoT Hub docs: device twins, and of what was seen on a real hub.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import structs

from emulator.hub.core.errors import PreconditionFailed
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso
from emulator.hub.twins.changes import TwinChanged
from emulator.hub.twins.twin import Section, Twin
from emulator.hub.twins.validation import check_object, check_part, check_size


def patch(twin: Twin, body: object, now: datetime) -> TwinChanged:
    """Merge a service's patch into tags and desired properties (IoT Hub docs: device twins).

    A part that is there is written, and counted, even if it changes nothing. A part that is null
    loses all its members, as in any merge patch; `properties`, a mere wrapper, counts as left out
    when it is null. A patch with neither part writes nothing, so the etag stays.

    Args:
        twin: the twin as it is.
        body: `{"tags": {…}, "properties": {"desired": {…}}}`; other members are ignored, because
            SDKs send a whole twin.
        now: in UTC.

    Raises:
        ArgumentInvalid: nothing of the patch is applied.
    """
    parts = _service_parts(body)
    if not parts:
        return TwinChanged(twin, now)
    tags, tag_changes = twin.tags, None
    if "tags" in parts:
        tag_changes = check_part("tags", _or_removal(parts["tags"], tags))
        tags = _write_tags(tags, tag_changes)
    desired, notice = twin.desired, None
    if "desired" in parts:
        changes = check_part("desired", _or_removal(parts["desired"], desired.values))
        desired = _write_section("desired", desired, changes, now)
        notice = {**changes, "$version": desired.version}
    written = structs.replace(twin, tags=tags, desired=desired, revision=twin.revision + 1)
    return TwinChanged(written, now, tags=tag_changes, desired=notice)


def replace(twin: Twin, body: object, now: datetime) -> TwinChanged:
    """Replace tags and desired properties; a part left out is emptied (seen on a real hub).

    Args:
        twin: the twin as it is.
        body: as for `patch`; a null inside it stands for a member that isn't there.
        now: in UTC.

    Raises:
        ArgumentInvalid: the twin stays as it is.
    """
    parts = {name: part for name, part in _service_parts(body).items() if part is not None}
    tags = _write_tags({}, check_part("tags", parts.get("tags", {})))
    emptied = Section({}, {}, twin.desired.version)
    desired = _write_section(
        "desired", emptied, check_part("desired", parts.get("desired", {})), now
    )
    written = structs.replace(twin, tags=tags, desired=desired, revision=twin.revision + 1)
    return TwinChanged(written, now, tags=tags, desired=desired.device_view(), replaced=True)


def report(
    twin: Twin, body: object, now: datetime, expected_version: int | None = None
) -> TwinChanged:
    """Merge a device's patch into its reported properties; the etag stays.

    Args:
        twin: the twin as it is.
        body: the members to merge.
        now: in UTC.
        expected_version: the version that the reported properties must be at; None is any.

    Raises:
        PreconditionFailed: they are at another version.
        ArgumentInvalid: nothing of the patch is applied. Too large is one of these: the docs of
            MQTT give status 400 for it (a 403 was seen once, but over AMQP).
    """
    version = twin.reported.version
    if expected_version not in (None, version):
        raise PreconditionFailed(
            f"The reported properties are at version {version}, not {expected_version}"
        )
    changes = check_part("reported", body)
    reported = _write_section("reported", twin.reported, changes, now)
    return TwinChanged(structs.replace(twin, reported=reported), now, reported=changes)


def _service_parts(body: object) -> JsonObject:
    """Pick what a service may write, `tags` and `desired`, as far as the body has them."""
    document = check_object(body, "the body")
    parts = {"tags": document["tags"]} if "tags" in document else {}
    properties = document.get("properties")
    if properties is not None:
        properties = check_object(properties, "'properties'")
        if "desired" in properties:
            parts["desired"] = properties["desired"]
    return parts


def _or_removal(part: object, current: JsonObject) -> object:
    """Spell out a null as the removal of each member, so that a device is told what it lost."""
    return dict.fromkeys(current) if part is None else part


def _write_tags(tags: JsonObject, changes: JsonObject) -> JsonObject:
    tags = _merge(tags, changes)
    check_size("tags", tags)
    return tags


def _write_section(name: str, section: Section, changes: JsonObject, now: datetime) -> Section:
    values = _merge(section.values, changes)
    check_size(name, values)
    version = section.version + 1
    mark = {"$lastUpdated": iso(now), "$lastUpdatedVersion": version}
    return Section(values, _touch(section.metadata, changes, mark), version)


def _merge(document: JsonObject, changes: JsonObject) -> JsonObject:
    """Apply a merge patch (RFC 7386); only what lies on its paths is copied."""
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
    """Copy arrays, and what is in them, so that the twin doesn't hold on to the caller's."""
    if isinstance(value, list):
        return [_copy(element) for element in value]
    if isinstance(value, dict):
        return {key: _copy(member) for key, member in value.items()}
    return value


def _touch(metadata: JsonObject, changes: JsonObject, mark: JsonObject) -> JsonObject:
    """Date every node on the patch's paths, and drop the nodes that it removes.

    It needs no values: a leaf's node has no members, so an object takes it over as it is.
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
