"""The difference of two digital twins as a JSON patch (RFC 6902), as events have it.

Captures of a real hub have the metadata of a property before its value, and a new component in one
operation (IoT Hub docs: non-telemetry events; azure-docs outputs of 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulator.hub.core.json import JsonObject

_METADATA, _MODEL, _ID = "$metadata", "$model", "$dtId"


def difference(before: JsonObject, after: JsonObject) -> list[JsonObject]:
    """Return the operations that make `after` of `before`; both as `digital_twins.document`."""
    old, new = before[_METADATA], after[_METADATA]
    steps = list(_changed(f"/{_METADATA}", old, new, (_MODEL,)))
    components = [name for name in {**before, **after} if _is_component(before, after, name)]
    steps += _properties("", before, after, components)
    for name in components:
        if name not in before:
            steps.append(_step("add", f"/{_escaped(name)}", after[name]))
        elif name not in after:
            steps.append({"op": "remove", "path": f"/{_escaped(name)}"})
        else:
            steps += _properties(f"/{_escaped(name)}", before[name], after[name], ())
    return steps


def _is_component(before: JsonObject, after: JsonObject, name: str) -> bool:
    value = after.get(name, before.get(name))
    return name not in (_METADATA, _ID) and isinstance(value, dict) and _METADATA in value


def _properties(
    path: str, before: JsonObject, after: JsonObject, components: Any
) -> Iterator[JsonObject]:
    """Return the operations of properties whose metadata changed: so they were written."""
    old, new = before.get(_METADATA, {}), after.get(_METADATA, {})
    for name in {**old, **new}:
        was, now = old.get(name), new.get(name)
        if name == _MODEL or name in components or was == now:
            continue
        written = f"{path}/{_METADATA}/{_escaped(name)}"
        if was is None:
            yield _step("add", written, now)
        elif now is None:
            yield {"op": "remove", "path": written}
        else:
            yield from _changed(written, was, now, {**was, **now})
        value = f"{path}/{_escaped(name)}"
        if name not in after:
            if name in before:
                yield {"op": "remove", "path": value}
        elif name not in before:
            yield _step("add", value, after[name])
        elif was["lastUpdateTime"] != now["lastUpdateTime"]:
            yield _step("replace", value, after[name])


def _changed(path: str, was: JsonObject, now: JsonObject, names: Any) -> Iterator[JsonObject]:
    for name in names:
        place = f"{path}/{_escaped(name)}"
        if name not in now:
            yield {"op": "remove", "path": place}
        elif name not in was:
            yield _step("add", place, now[name])
        elif was[name] != now[name]:
            yield _step("replace", place, now[name])


def _step(operation: str, path: str, value: Any) -> JsonObject:
    return {"op": operation, "path": path, "value": value}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
