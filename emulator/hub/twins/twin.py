"""Device and module twins: tags, desired and reported properties, and how a write changes them.

A twin is a value. A write makes a new one, which shares with the old one what the write left alone;
so nothing inside a twin, or in what its views return, may ever be changed in place.

The rules are those of IoT Hub docs: device twins, and of what was seen on a real hub. Where both
are silent the rule is EdgeHub's (Azure IoT Edge, source), which mirrors the hub's own checks.
"""

from __future__ import annotations

import base64
import math
import re
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct, structs

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, PreconditionFailed
from emulator.hub.core.json import JsonObject, WrittenNumber
from emulator.hub.core.times import NEVER, iso
from emulator.hub.identities.identity import IdentityKey

# C0 and C1 as .NET's Char.IsControl has them, which is with DEL between the two.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# '#' isn't in the docs; a real hub refuses it, and EdgeHub says that the service reserves it.
_FORBIDDEN_IN_KEYS = re.compile(r"[\x00-\x1f\x7f-\x9f .$#]")
_MAX_BYTES = {
    "tags": limits.TWIN_TAGS_BYTES,
    "desired": limits.TWIN_DESIRED_BYTES,
    "reported": limits.TWIN_REPORTED_BYTES,
}
# The hub's own members of a section. Clients send them back with a twin that they have read.
_SYSTEM_MEMBERS = ("$metadata", "$version")


class Section(Struct, frozen=True):
    """The desired or the reported properties.

    Args:
        values: the user's members only.
        metadata: mirrors the tree of `values`. A node holds `$lastUpdated`, `$lastUpdatedVersion`
            (not before the first write) and then a node for each member; an array has one node.
        version: counts the writes, from 1.
    """

    values: JsonObject
    metadata: JsonObject
    version: int

    def service_view(self) -> JsonObject:
        """Give the members, then `$metadata`, then `$version` (seen on a real hub)."""
        return {**self.values, "$metadata": self.metadata, "$version": self.version}

    def device_view(self) -> JsonObject:
        """Give the members, then `$version`: devices see no metadata (IoT Hub docs)."""
        return {**self.values, "$version": self.version}


class Twin(Struct, frozen=True):
    """The twin of a device or of a module.

    Args:
        key: whose twin it is.
        tags: seen by services only.
        desired: written by services, read by the device.
        reported: written by the device, read by services.
        revision: counts the writes of services, from 1.
    """

    key: IdentityKey
    tags: JsonObject
    desired: Section
    reported: Section
    revision: int

    @property
    def etag(self) -> str:
        """The revision as eight bytes in Base64: `AAAAAAAAAAE=` (seen on a real hub)."""
        return base64.b64encode(self.revision.to_bytes(8, "big")).decode()

    @property
    def version(self) -> int:
        """The sum of both sections' versions (seen on a real hub)."""
        return self.desired.version + self.reported.version

    def device_view(self) -> JsonObject:
        """Give `{"desired", "reported"}`, the answer to a device's GET (IoT Hub docs: MQTT)."""
        return {"desired": self.desired.device_view(), "reported": self.reported.device_view()}


class Change(NamedTuple):
    """What a service's write made of a twin.

    `desired` is what a connected device is told: the patch, its nulls included, or after a replace
    the whole desired properties; and `$version`. It is None where they were not written.
    """

    twin: Twin
    desired: JsonObject | None


def create(key: IdentityKey, now: datetime) -> Twin:
    """Make the twin of a new identity; that of a module has no date yet (seen on a real hub)."""
    metadata: JsonObject = {"$lastUpdated": iso(now if key.module_id is None else NEVER)}
    section = Section({}, metadata, 1)
    return Twin(key, tags={}, desired=section, reported=section, revision=1)


def patch(twin: Twin, body: object, now: datetime) -> Change:
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
        return Change(twin, None)
    tags, desired, notice = twin.tags, twin.desired, None
    if "tags" in parts:
        tags = _write_tags(tags, _or_removal(parts["tags"], tags))
    if "desired" in parts:
        changes = _checked("desired", _or_removal(parts["desired"], desired.values))
        desired = _write_section("desired", desired, changes, now)
        notice = {**changes, "$version": desired.version}
    revision = twin.revision + 1
    return Change(structs.replace(twin, tags=tags, desired=desired, revision=revision), notice)


def replace(twin: Twin, body: object, now: datetime) -> Change:
    """Replace tags and desired properties; a part left out is emptied (seen on a real hub).

    Args:
        twin: the twin as it is.
        body: as for `patch`; a null inside it stands for a member that isn't there.
        now: in UTC.

    Raises:
        ArgumentInvalid: the twin stays as it is.
    """
    parts = {name: part for name, part in _service_parts(body).items() if part is not None}
    tags = _write_tags({}, parts.get("tags", {}))
    emptied = Section({}, {}, twin.desired.version)
    desired = _write_section("desired", emptied, _checked("desired", parts.get("desired", {})), now)
    revision = twin.revision + 1
    return Change(
        structs.replace(twin, tags=tags, desired=desired, revision=revision),
        desired.device_view(),
    )


def report(twin: Twin, body: object, now: datetime, expected_version: int | None = None) -> Twin:
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
    changes = _checked("reported", body)
    return structs.replace(twin, reported=_write_section("reported", twin.reported, changes, now))


def size(value: object) -> int:
    """Measure a value as twin limits count it, in bytes (IoT Hub docs: device twins).

    Keys and strings are UTF-8 without control characters, a number is 8, a boolean 4. The docs
    leave arrays out; here one is the sum of its elements.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return len(value)
        return len(_CONTROLS.sub("", value).encode())
    if isinstance(value, dict):
        return sum([size(key) + size(member) for key, member in value.items()])
    if isinstance(value, list):
        return sum([size(element) for element in value])
    return 4 if isinstance(value, bool) else 8


# --- writing


def _service_parts(body: object) -> JsonObject:
    """Pick what a service may write, `tags` and `desired`, as far as the body has them."""
    document = _object(body, "the body")
    parts = {"tags": document["tags"]} if "tags" in document else {}
    properties = document.get("properties")
    if properties is not None:
        properties = _object(properties, "'properties'")
        if "desired" in properties:
            parts["desired"] = properties["desired"]
    return parts


def _or_removal(part: object, current: JsonObject) -> object:
    """Spell out a null as the removal of each member, so that a device is told what it lost."""
    return dict.fromkeys(current) if part is None else part


def _write_tags(tags: JsonObject, given: object) -> JsonObject:
    tags = _merge(tags, _checked("tags", given))
    _check_size("tags", tags)
    return tags


def _write_section(name: str, section: Section, changes: JsonObject, now: datetime) -> Section:
    values = _merge(section.values, changes)
    _check_size(name, values)
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


# --- checking. The texts are the real hub's where one was seen, else EdgeHub's.


def _object(value: object, what: str) -> JsonObject:
    if not isinstance(value, dict):
        raise ArgumentInvalid(
            f"Provided json is not a valid 'tags' or 'properties' object: {what} is not an object"
        )
    return value


def _checked(name: str, given: object) -> JsonObject:
    """Check a part as it was given, and take off the hub's own members at its root."""
    changes = _object(given, f"'{name}'")
    if name != "tags":
        changes = {key: value for key, value in changes.items() if key not in _SYSTEM_MEMBERS}
    _check_members(changes, level=1, in_array=False)
    return changes


def _check_members(members: JsonObject, level: int, in_array: bool) -> None:
    for key, value in members.items():
        _check_key(key)
        if value is None and in_array:
            raise ArgumentInvalid(f"Property {key} of an object in an array cannot be 'null'")
        _check_value(key, value, level, in_array)


def _check_key(key: str) -> None:
    # Also of a member that is to be removed: it names something that can't be there.
    if _utf8_length(key) > limits.TWIN_KEY_BYTES:
        raise ArgumentInvalid(
            f"Length of property name {key[:10]}.. exceeds maximum length of "
            f"{limits.TWIN_KEY_BYTES}"
        )
    if forbidden := _FORBIDDEN_IN_KEYS.search(key):
        raise ArgumentInvalid(
            f"Property name {key} contains invalid character '{forbidden.group()}'"
        )


def _check_value(key: str, value: Any, level: int, in_array: bool) -> None:
    """Check the value of the member `key`, or an element of the array that this member is.

    `level` is the one that an object has here, from 1. An array takes a level too, and so do
    arrays and objects in it (EdgeHub).
    """
    if isinstance(value, str):
        if _utf8_length(value) > limits.TWIN_STRING_BYTES:
            raise ArgumentInvalid(
                f"Property or Tag value should be maximum {limits.TWIN_STRING_BYTES} bytes. "
                f"Error in Property/Tag {key}"
            )
    elif isinstance(value, (dict, list)):
        if level > limits.TWIN_DEPTH:
            raise ArgumentInvalid(
                f"Nested depth of twin property exceeds {limits.TWIN_DEPTH}. "
                f"Error in Property/Tag {key}"
            )
        if isinstance(value, dict):
            _check_members(value, level + 1, in_array)
        else:
            for element in value:
                if element is None:
                    raise ArgumentInvalid(
                        f"Arrays cannot contain 'null' as value. Error in Property/Tag {key}"
                    )
                _check_value(key, element, level + 1, in_array=True)
    elif isinstance(value, (int, float)):  # or a boolean, which is within any range
        _check_number(key, value)


def _check_number(key: str, number: float) -> None:
    # A double, by how it is written, may go beyond the integers' range: `1e20`, `5e15`. This is how
    # .NET's parser tells them apart. 30 digits without a point are an integer that is out of range.
    if isinstance(number, WrittenNumber):
        integer = not any(character in number.text for character in ".eE")
    else:
        integer = isinstance(number, int)
    if integer and not limits.TWIN_INTEGER_MIN <= number <= limits.TWIN_INTEGER_MAX:
        raise ArgumentInvalid(
            f"Property {key} has an out of bound value. Valid values are between "
            f"{limits.TWIN_INTEGER_MIN} and {limits.TWIN_INTEGER_MAX}"
        )
    # `1e999` is JSON, but a reader would make Infinity of it, which is not: better told now.
    if not math.isfinite(number):
        raise ArgumentInvalid(f"Property {key} has an out of bound value. It is beyond a double")


def _check_size(name: str, values: JsonObject) -> None:
    actual, maximum = size(values), _MAX_BYTES[name]
    if actual > maximum:
        raise ArgumentInvalid(
            f"Twin properties size {actual} exceeds maximum {maximum} in '{name}'"
        )


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
