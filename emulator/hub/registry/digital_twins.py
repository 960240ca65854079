"""Digital twins: IoT Plug and Play's view of a twin, with its reported and desired properties.

A component is an object that has `"__t": "c"` in the twin; in the digital twin it has its own
`$metadata`. The hub knows no models, so it does not check rules that only a model has, such as
whether a property can be written.

The rules are from IoT Plug and Play docs: digital twins, manage digital twins, conventions.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any

from msgspec import Struct

from emulator.hub.core import errors, limits
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import UNDEFINED, JsonObject, equal
from emulator.hub.core.members import Form
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.documents import TwinRow
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins
from emulator.hub.twins.twin import Section
from emulator.hub.twins.writes import overwriting

_METADATA = "$metadata"
_MARK = {"__t": "c"}

# The members with which a device acknowledges a desired value, and their names in the digital twin.
# An acknowledgement has `value` and `ac`; another object is a value.
_ACKNOWLEDGEMENT = {"av": "ackVersion", "ac": "ackCode", "ad": "ackDescription"}

# A valid name in DTDL v2, for components, properties, fields and the keys of maps.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]{0,62}[A-Za-z0-9])?", re.ASCII)
_DEPTH = 5

_STEP = Form("op", "path", "value")

# RFC 6902. Digital twins refuse the last two. The docs do not mention `test`, but a library that
# creates patches can send it, so it has the meaning of the RFC.
_OPERATIONS = ("add", "replace", "remove", "test", "move", "copy")


class DigitalTwins:
    """The digital twins of a hub."""

    def __init__(self, rows: Rows, twins: Twins) -> None:
        self._rows = rows
        self._twins = twins

    def get(self, device_id: str) -> tuple[JsonObject, str]:
        """Return a digital twin, and the etag of its twin.

        Raises:
            DeviceNotFound
        """
        row = self._rows.row(IdentityKey(device_id))
        return document(row), row.twin.etag

    def update(self, device_id: str, patch: object, if_match: IfMatch) -> str:
        """Apply a JSON patch to the desired properties, and notify the device.

        Returns:
            The new etag.

        Raises:
            DeviceNotFound, PreconditionFailed
            InvalidDigitalTwinJsonPatch, InvalidDigitalTwinPatch, InvalidDigitalTwinPatchPath,
            ArgumentInvalid: the patch is invalid; nothing of it is applied.
        """
        key = IdentityKey(device_id)
        changes = desired_changes(self._rows.row(key), patch)
        body = {"properties": {"desired": changes}} if changes else {}
        etag: str = self._twins.patch(key, body, if_match)["etag"]
        return etag


def command(name: str, component: str | None, payload: object, time_outs: JsonObject) -> JsonObject:
    """Return the direct method call of a command (IoT Plug and Play docs: conventions).

    Args:
        name: the name of the command.
        component: the name of the component; None for the root.
        payload: a JSON value.
        time_outs: `responseTimeoutInSeconds`, `connectTimeoutInSeconds`, or a part of them, as
            texts.
    """
    method = name if component is None else f"{component}*{name}"
    return {"methodName": method, "payload": payload, **time_outs}


# --- the view


def document(row: TwinRow) -> JsonObject:
    """Return a digital twin: `$dtId`, properties, components, `$metadata`.

    The id of the model is empty for a device without a model (seen on a real hub).
    """
    desired, reported = row.twin.desired, row.twin.reported
    components = {
        name: _view(_below(desired, name), _below(reported, name))
        for name in {**reported.values, **desired.values}
        if _is_component(name, reported.values, desired.values)
    }
    root = _view(desired, reported, without=components)
    metadata = {"$model": row.identity.model_id, **root.pop(_METADATA)}
    return {"$dtId": row.identity.key.device_id, **root, **components, _METADATA: metadata}


def _below(section: Section, name: str) -> Section:
    """Return a component of a section; an empty one if it is missing."""
    value = section.values.get(name)
    if not isinstance(value, dict):
        return Section({}, {}, section.version)
    values = {key: member for key, member in value.items() if key not in _MARK}
    return Section(values, section.metadata[name], section.version)


def _view(desired: Section, reported: Section, without: Container[str] = ()) -> JsonObject:
    """Return the reported values of properties, and the `$metadata` of all properties."""
    names = [name for name in {**reported.values, **desired.values} if name not in without]
    # A desired value is only in the metadata, until the device reports it.
    values = {name: _value(reported.values[name]) for name in names if name in reported.values}
    return {**values, _METADATA: {name: _metadata(name, desired, reported) for name in names}}


def _metadata(name: str, desired: Section, reported: Section) -> JsonObject:
    metadata: JsonObject = {}
    if name in desired.values:
        metadata["desiredValue"] = desired.values[name]
        metadata["desiredVersion"] = desired.metadata[name]["$lastUpdatedVersion"]
    if name in reported.values:
        value = reported.values[name]
        if _is_acknowledgement(value):
            shown = _ACKNOWLEDGEMENT.items()
            metadata |= {title: value[member] for member, title in shown if member in value}
        metadata["lastUpdateTime"] = reported.metadata[name]["$lastUpdated"]
    return metadata


def _value(reported: Any) -> Any:
    return reported["value"] if _is_acknowledgement(reported) else reported


def _is_acknowledgement(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value and "ac" in value


def _is_component(name: str, *sections: JsonObject) -> bool:
    values = (section.get(name) for section in sections)
    return any(isinstance(value, dict) and _MARK.items() <= value.items() for value in values)


# --- a patch


class _Step(Struct, frozen=True):
    """An operation of a JSON patch; `value` is None if the operation has no value."""

    operation: str
    path: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, item: object) -> _Step:
        if not isinstance(item, dict):
            raise errors.InvalidDigitalTwinJsonPatch("An operation of the patch is not an object.")
        item = _STEP.read(item)
        operation = item.get("op")
        if operation not in _OPERATIONS:
            raise errors.InvalidDigitalTwinJsonPatch(
                f"Unknown operation '{operation}'. Use add, replace or remove."
            )
        if operation in ("move", "copy"):
            raise errors.InvalidDigitalTwinPatch(
                f"Digital twins have no operation '{operation}'. Use add, replace or remove."
            )
        if operation != "remove" and "value" not in item:
            raise errors.InvalidDigitalTwinJsonPatch(f"The operation '{operation}' has no value.")
        return cls(operation, _path(item.get("path")), item.get("value"))

    @property
    def pointer(self) -> str:
        """The path as in the patch, without escapes."""
        return "/" + "/".join(self.path)


def desired_changes(row: TwinRow, patch: object) -> JsonObject:
    """Translate a JSON patch of a digital twin into a merge patch of its desired properties.

    A path has the name of a property, of a component, or of both. The patch writes the whole value
    at a path, even if it does not change. The value of a component has an empty `$metadata`.
    `replace` and `remove` need a value that is desired or reported. A `test` compares with the
    digital twin before the patch, because no patch changes reported properties.

    Returns:
        The merge patch; `{}` if the patch changes nothing.

    Raises:
        InvalidDigitalTwinJsonPatch: the body is not a JSON patch.
        InvalidDigitalTwinPatch: an operation is not allowed, or a test fails.
        InvalidDigitalTwinPatchPath: a path is invalid or unknown.
        ArgumentInvalid: a value is not valid for a property, or a property is written as a
            component, or a component as a property.
    """
    if not isinstance(patch, list):
        raise errors.InvalidDigitalTwinJsonPatch("The body is not an array of operations.")
    if len(patch) > limits.DIGITAL_TWIN_OPERATIONS:
        raise errors.InvalidDigitalTwinJsonPatch(
            f"The patch has {len(patch)} operations. {limits.DIGITAL_TWIN_OPERATIONS} are allowed."
        )
    view = document(row)
    before, reported = row.twin.desired.values, row.twin.reported.values
    after, written = before, []
    for step in map(_Step.parse, patch):
        if step.operation == "test":
            _test(view, step)
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
        # The text was seen on a real hub.
        raise errors.InvalidDigitalTwinPatch(
            f"Error in path: {pointer}. 'path' string must be non-null, begin with '/' and have "
            "atleast the component name."
        )
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in names)


def _write(desired: JsonObject, reported: JsonObject, step: _Step) -> JsonObject:
    """Return the desired properties after an operation."""
    name, *rest = step.path
    if len(rest) > 1 or not all(map(_NAME.fullmatch, step.path)):
        raise errors.InvalidDigitalTwinPatchPath(
            f"Invalid path '{step.pointer}'. Use /property, /component or /component/property."
        )
    if step.operation != "add" and not (_has(desired, step.path) or _has(reported, step.path)):
        raise errors.InvalidDigitalTwinPatchPath(f"Unknown path '{step.pointer}'.")
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
    if component == _MARK:  # a component without properties is removed
        return {key: value for key, value in desired.items() if key != name}
    return {**desired, name: component}


def _component(value: JsonObject) -> JsonObject:
    """Return the value of a component in the form of a twin."""
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
    """Return whether a property can have a value: no null, no array, at most five levels."""
    if not isinstance(value, dict):
        return value is not None and not isinstance(value, list)
    return depth > 0 and all(
        _NAME.fullmatch(name) and _conforms(member, depth - 1) for name, member in value.items()
    )


def _check(name: str, conforms: bool) -> None:
    if not conforms:
        # The docs have one text for every invalid value.
        raise errors.ArgumentInvalid(
            f"'{name}' exists within the device twin and is not digital twin conformant property. "
            "Please refer to aka.ms/dtpatch to update this to be conformant."
        )


def _find(values: Any, path: Iterable[str]) -> Any:
    """Return the value at a path; UNDEFINED if it is missing."""
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return UNDEFINED
        values = values[name]
    return values


def _has(values: Any, path: Iterable[str]) -> bool:
    return _find(values, path) is not UNDEFINED


def _test(view: JsonObject, step: _Step) -> None:
    value = _find(view, step.path)
    if value is UNDEFINED:
        raise errors.InvalidDigitalTwinPatchPath(f"Unknown path '{step.pointer}'.")
    if not equal(value, step.value):
        raise errors.InvalidDigitalTwinPatch(f"The test of '{step.pointer}' failed.")


def _merge_patch(
    before: JsonObject, after: JsonObject, written: Iterable[tuple[str, ...]]
) -> JsonObject:
    """Return the merge patch that writes and dates these paths, and no other path."""
    paths = set(written)
    changes: JsonObject = {}
    for path in dict.fromkeys(written):
        name = path[0]
        if name not in after:
            if name in before:
                changes[name] = None
        elif (name,) in paths:
            changes[name] = overwriting(before.get(name), after[name])
        elif _has(after, path) or _has(before, path):
            part = changes.setdefault(name, dict(_MARK))
            part[path[1]] = overwriting(_find(before, path), after[name].get(path[1]))
    return changes
