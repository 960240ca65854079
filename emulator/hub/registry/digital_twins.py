"""Digital twins: a device's twin as IoT Plug and Play sees it, one view of the properties that the
device reports and of those that services desire.

A component is an object that has `"__t": "c"` in the twin; in the digital twin it has `$metadata`
of its own. The hub knows no models, so what only a model could tell, such as whether a property may
be written, is not checked.

The rules are those of IoT Plug and Play docs: digital twins, manage digital twins, conventions.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from msgspec import Struct

from emulator.hub.core import errors
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.documents import TwinRow
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins
from emulator.hub.twins.twin import Section

_METADATA = "$metadata"
_MARK = {"__t": "c"}

# The members with which a device acknowledges a desired value, and what the digital twin calls
# them. `value` and `ac` tell an acknowledgement from a value that is an object.
_ACKNOWLEDGEMENT = {"av": "ackVersion", "ac": "ackCode", "ad": "ackDescription"}

# A name of DTDL v2, which components, properties, fields and the keys of maps must have.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]{0,62}[A-Za-z0-9])?", re.ASCII)
_DEPTH = 5

# RFC 6902. Digital twins take the first three. The docs don't speak of `test`: a program that makes
# its patches with a library may send it, and means what the RFC says.
_WRITES = ("add", "replace", "remove")
_OPERATIONS = (*_WRITES, "test", "move", "copy")
_WITH_VALUE = ("add", "replace", "test")


class DigitalTwins:
    """The digital twins of a hub."""

    def __init__(self, rows: Rows, twins: Twins) -> None:
        self._rows = rows
        self._twins = twins

    def get(self, device_id: str) -> tuple[JsonObject, str]:
        """Read a digital twin; gives its document, and the etag, which is the twin's.

        Raises:
            DeviceNotFound
        """
        row = self._rows.row(IdentityKey(device_id))
        return document(row), row.twin.etag

    def update(self, device_id: str, patch: object, if_match: IfMatch) -> str:
        """Write desired properties as a JSON patch says, and tell the device; gives the new etag.

        Raises:
            DeviceNotFound, PreconditionFailed
            InvalidDigitalTwinJsonPatch, InvalidDigitalTwinPatch, InvalidDigitalTwinPatchPath,
            ArgumentInvalid: nothing of the patch is applied.
        """
        key = IdentityKey(device_id)
        changes = desired_changes(self._rows.row(key), patch)
        body = {"properties": {"desired": changes}} if changes else {}
        etag: str = self._twins.patch(key, body, if_match)["etag"]
        return etag


def command(name: str, component: str | None, payload: object, time_outs: JsonObject) -> JsonObject:
    """Write the direct method that a command is (IoT Plug and Play docs: conventions).

    Args:
        name: the command's.
        component: None for a command of the root.
        payload: a JSON value.
        time_outs: `responseTimeoutInSeconds`, `connectTimeoutInSeconds`, as far as they are given.

    Returns:
        the body of a direct method's call.
    """
    method = name if component is None else f"{component}*{name}"
    return {"methodName": method, "payload": payload, **time_outs}


# --- the view


class _Node(NamedTuple):
    """An object within a section of a twin, and its metadata."""

    values: JsonObject
    metadata: JsonObject

    @classmethod
    def root(cls, section: Section) -> _Node:
        return cls(section.values, section.metadata)

    def below(self, name: str) -> _Node:
        """Give the component `name`; an empty one if there is none here."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            return _Node({}, {})
        values = {key: member for key, member in value.items() if key not in _MARK}
        return _Node(values, self.metadata[name])


def document(row: TwinRow) -> JsonObject:
    """Write a digital twin: `$dtId`, properties, components, `$metadata`.

    The model's id is empty for a device that names none (seen on a real hub).
    """
    desired, reported = _Node.root(row.twin.desired), _Node.root(row.twin.reported)
    components = {
        name: _component_view(desired.below(name), reported.below(name))
        for name in {**reported.values, **desired.values}
        if _is_component(name, reported.values, desired.values)
    }
    properties, metadata = _properties(desired, reported, without=components)
    return {
        "$dtId": row.identity.key.device_id,
        **properties,
        **components,
        _METADATA: {"$model": row.identity.model_id, **metadata},
    }


def _component_view(desired: _Node, reported: _Node) -> JsonObject:
    properties, metadata = _properties(desired, reported)
    return {**properties, _METADATA: metadata}


def _properties(
    desired: _Node, reported: _Node, without: Container[str] = ()
) -> tuple[JsonObject, JsonObject]:
    """Give the values of properties, as they are reported, and what else is known of each."""
    names = [name for name in {**reported.values, **desired.values} if name not in without]
    # A value that is only desired stands in the metadata alone, until the device reports it.
    values = {name: _value(reported.values[name]) for name in names if name in reported.values}
    metadata = {
        name: {**_desired_metadata(name, desired), **_reported_metadata(name, reported)}
        for name in names
    }
    return values, metadata


def _desired_metadata(name: str, desired: _Node) -> JsonObject:
    if name not in desired.values:
        return {}
    version = desired.metadata[name]["$lastUpdatedVersion"]
    return {"desiredValue": desired.values[name], "desiredVersion": version}


def _reported_metadata(name: str, reported: _Node) -> JsonObject:
    if name not in reported.values:
        return {}
    value = reported.values[name]
    acknowledged = {
        shown: value[member]
        for member, shown in _ACKNOWLEDGEMENT.items()
        if _is_acknowledgement(value) and member in value
    }
    return {**acknowledged, "lastUpdateTime": reported.metadata[name]["$lastUpdated"]}


def _value(reported: Any) -> Any:
    return reported["value"] if _is_acknowledgement(reported) else reported


def _is_acknowledgement(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value and "ac" in value


def _is_component(name: str, *sections: JsonObject) -> bool:
    values = (section.get(name) for section in sections)
    return any(isinstance(value, dict) and _MARK.items() <= value.items() for value in values)


# --- a patch


class _Step(Struct, frozen=True):
    """One operation of a JSON patch; `value` is None where the operation has none."""

    operation: str
    path: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, item: object) -> _Step:
        if not isinstance(item, dict):
            raise errors.InvalidDigitalTwinJsonPatch("An operation of the patch is not an object.")
        operation = item.get("op")
        if operation not in _OPERATIONS:
            raise errors.InvalidDigitalTwinJsonPatch(
                f"'{operation}' is no operation of a JSON patch."
            )
        if operation not in (*_WRITES, "test"):
            raise errors.InvalidDigitalTwinPatch(
                f"'{operation}' can't be done on a digital twin: add, replace and remove can."
            )
        if operation in _WITH_VALUE and "value" not in item:
            raise errors.InvalidDigitalTwinJsonPatch(f"An operation '{operation}' has no value.")
        return cls(operation, _path(item.get("path")), item.get("value"))

    @property
    def pointer(self) -> str:
        """The path, as the patch has it, but for what is escaped there."""
        return "/" + "/".join(self.path)


def desired_changes(row: TwinRow, patch: object) -> JsonObject:
    """Translate a JSON patch of a digital twin into a merge patch of its desired properties.

    A path names a property, a component, or a property of a component; whatever it names is written
    as a whole, even if nothing changes by it. A component's value is marked by an empty
    `$metadata`. `add` needs nothing to be there; `replace` and `remove` need a value that is
    desired or reported, as in the view. A `test` sees the digital twin as it was before the patch,
    since no patch can change what is reported.

    Returns:
        nothing to change as `{}`.

    Raises:
        InvalidDigitalTwinJsonPatch: it is no JSON patch.
        InvalidDigitalTwinPatch: it does what can't be done on a digital twin, or a test fails.
        InvalidDigitalTwinPatchPath: a path names nothing that is there, or that can be there.
        ArgumentInvalid: a value is none that a property can have, or a property is written as if it
            were a component, or the reverse.
    """
    if not isinstance(patch, list):
        raise errors.InvalidDigitalTwinJsonPatch("The body is not an array of operations.")
    before, reported = row.twin.desired.values, row.twin.reported.values
    after, written = before, []
    for step in map(_Step.parse, patch):
        if step.operation == "test":
            _test(document(row), step)
        else:
            after = _write(after, reported, step)
            written.append(step.path)
    return _merge_patch(before, after, written)


def _path(pointer: object) -> tuple[str, ...]:
    """Split a JSON pointer (RFC 6901)."""
    if pointer is not None and not isinstance(pointer, str):
        raise errors.InvalidDigitalTwinJsonPatch("The path of an operation is not a string.")
    first, *names = (pointer or "").split("/")
    if first or not names or not names[0]:
        # The text of a real hub, as seen there.
        raise errors.InvalidDigitalTwinPatch(
            f"Error in path: {pointer}. 'path' string must be non-null, begin with '/' and have "
            "atleast the component name."
        )
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in names)


def _write(desired: JsonObject, reported: JsonObject, step: _Step) -> JsonObject:
    """Make the desired properties that there are after an operation."""
    name, *rest = step.path
    if len(rest) > 1 or not all(map(_NAME.fullmatch, step.path)):
        raise errors.InvalidDigitalTwinPatchPath(
            f"'{step.pointer}' names no property, and no component with or without a property."
        )
    if step.operation != "add" and not (_has(desired, step.path) or _has(reported, step.path)):
        raise errors.InvalidDigitalTwinPatchPath(f"'{step.pointer}' is not there.")
    if rest:
        return _write_in_component(desired, reported, name, rest[0], step)
    if step.operation == "remove":
        return {key: value for key, value in desired.items() if key != name}
    marked = isinstance(step.value, dict) and _METADATA in step.value
    if name in desired or name in reported:
        _check(name, marked == _is_component(name, desired, reported))
    return {**desired, name: _component(step.value) if marked else _checked(name, step.value)}


def _write_in_component(
    desired: JsonObject, reported: JsonObject, name: str, prop: str, step: _Step
) -> JsonObject:
    if name in desired or name in reported:
        _check(name, _is_component(name, desired, reported))
    current = desired.get(name)
    component = {**_MARK, **current} if isinstance(current, dict) else dict(_MARK)
    if step.operation != "remove":
        return {**desired, name: {**component, prop: _checked(prop, step.value)}}
    component.pop(prop, None)
    if component == _MARK:  # with its last property the component goes
        return {key: value for key, value in desired.items() if key != name}
    return {**desired, name: component}


def _component(value: JsonObject) -> JsonObject:
    """Write a component's value as a twin has it."""
    if value[_METADATA] != {}:
        raise errors.InvalidDigitalTwinPatch("The $metadata of a component is not an empty object.")
    members = {name: member for name, member in value.items() if name != _METADATA}
    for name, member in members.items():
        _check(name, _NAME.fullmatch(name) is not None)
        _checked(name, member)
    return {**_MARK, **members}


def _checked(name: str, value: Any) -> Any:
    _check(name, _conforms(value, _DEPTH))
    return value


def _conforms(value: Any, depth: int) -> bool:
    """Whether a property can have the value: no null, no array, objects five levels deep."""
    if not isinstance(value, dict):
        return value is not None and not isinstance(value, list)
    return depth > 0 and all(
        _NAME.fullmatch(name) and _conforms(member, depth - 1) for name, member in value.items()
    )


def _check(name: str, conforms: bool) -> None:
    if not conforms:
        # The docs have this text for whatever is wrong with a value.
        raise errors.ArgumentInvalid(
            f"'{name}' exists within the device twin and is not digital twin conformant property. "
            "Please refer to aka.ms/dtpatch to update this to be conformant."
        )


def _has(values: Any, path: Iterable[str]) -> bool:
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def _test(view: Any, step: _Step) -> None:
    for name in step.path:
        if not isinstance(view, dict) or name not in view:
            raise errors.InvalidDigitalTwinPatchPath(f"'{step.pointer}' is not there.")
        view = view[name]
    if not _equal(view, step.value):
        raise errors.InvalidDigitalTwinPatch(
            f"'{step.pointer}' has not the value that is tested for."
        )


def _equal(one: Any, other: Any) -> bool:
    """Compare JSON values; numbers by their values, and no boolean is a number (RFC 6902)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _merge_patch(
    before: JsonObject, after: JsonObject, written: Iterable[tuple[str, ...]]
) -> JsonObject:
    """Make the merge patch that writes these paths, and so dates them, and nothing else."""
    paths = set(written)
    changes: JsonObject = {}
    for path in dict.fromkeys(written):
        name = path[0]
        if name not in after:
            if name in before:
                changes[name] = None
        elif (name,) in paths:
            changes[name] = _overwrite(before.get(name), after[name])
        elif _has(after, path):
            old = before.get(name)
            old_value = old.get(path[1]) if isinstance(old, dict) else None
            part = changes.setdefault(name, dict(_MARK))
            part[path[1]] = _overwrite(old_value, after[name][path[1]])
        elif _has(before, path):
            changes.setdefault(name, dict(_MARK))[path[1]] = None
    return changes


def _overwrite(old: Any, new: Any) -> Any:
    """Write a value so that nothing of the old one stays when it is merged."""
    if not isinstance(new, dict):
        return new
    kept = old if isinstance(old, dict) else {}
    removed = {name: None for name in kept if name not in new}
    return removed | {name: _overwrite(kept.get(name), value) for name, value in new.items()}
