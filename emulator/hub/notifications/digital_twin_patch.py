"""The difference of two digital twins as a JSON patch (RFC 6902), as events have it.

Captures of a real hub have the metadata of a property before its value, and a new component in one
operation (IoT Hub docs: non-telemetry events; azure-docs outputs of 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from emulator.hub.core.json import JsonObject, equal

_METADATA, _MODEL, _ID = "$metadata", "$model", "$dtId"


def difference(before: JsonObject, after: JsonObject) -> list[JsonObject]:
    """Return the operations that make `after` of `before`; both as `digital_twins.document`."""
    old, new = _components(before), _components(after)
    steps = list(_changed(f"/{_METADATA}", before[_METADATA], after[_METADATA], (_MODEL,)))
    # A property can become a component, and a component a property.
    steps += [_removal(f"/{_escaped(name)}") for name in old if name not in new]
    steps += _properties("", _without(before, old), _without(after, new))
    for name, value in new.items():
        path = f"/{_escaped(name)}"
        if name in old:
            steps += _properties(path, old[name], value)
        else:
            steps.append(_step("add", path, value))
    return steps


def _components(twin: JsonObject) -> JsonObject:
    return {
        name: value
        for name, value in twin.items()
        if name not in (_METADATA, _ID) and isinstance(value, dict) and _METADATA in value
    }


def _without(twin: JsonObject, names: Iterable[str]) -> JsonObject:
    return {name: value for name, value in twin.items() if name not in names}


def _properties(path: str, before: JsonObject, after: JsonObject) -> Iterator[JsonObject]:
    """Return the operations of properties whose metadata changed: so they were written."""
    old, new = before.get(_METADATA, {}), after.get(_METADATA, {})
    for name in {**old, **new}:
        was, now = old.get(name), new.get(name)
        if name == _MODEL or equal(was, now):
            continue
        written = f"{path}/{_METADATA}/{_escaped(name)}"
        if was is None:
            yield _step("add", written, now)
        elif now is None:
            yield _removal(written)
        else:
            yield from _changed(written, was, now, {**was, **now})
        value = f"{path}/{_escaped(name)}"
        if name not in after:
            if name in before:
                yield _removal(value)
        elif name not in before:
            yield _step("add", value, after[name])
        elif was["lastUpdateTime"] != now["lastUpdateTime"]:
            yield _step("replace", value, after[name])


def _changed(path: str, was: JsonObject, now: JsonObject, names: Any) -> Iterator[JsonObject]:
    for name in names:
        place = f"{path}/{_escaped(name)}"
        if name not in now:
            yield _removal(place)
        elif name not in was:
            yield _step("add", place, now[name])
        elif not equal(was[name], now[name]):
            yield _step("replace", place, now[name])


def _step(operation: str, path: str, value: Any) -> JsonObject:
    return {"op": operation, "path": path, "value": value}


def _removal(path: str) -> JsonObject:
    return {"op": "remove", "path": path}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
