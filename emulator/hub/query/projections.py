"""Projections and aggregations: the rows of a query other than SELECT *."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, JsonObject
from emulator.hub.query.expressions import Members, R, compile_expression, compile_path, member_name
from emulator.hub.query.tree import Aggregate, Item, Path, quoted
from emulator.hub.query.values import Kind, finite, kind


def compile_projection(items: Sequence[Item], members: Members[R]) -> Callable[[R], JsonObject]:
    """Return the function that writes the object of a row; undefined members are left out.

    Raises:
        ArgumentInvalid: two members have the same name.
    """
    write = _compile_items(items, members)
    return lambda row: write((row,))  # each row is a group of its own


def compile_aggregation(
    items: Sequence[Item], group_by: Sequence[Path], members: Members[R]
) -> Callable[[Iterable[R]], list[JsonObject]]:
    """Return the function that writes one object for each group of rows.

    Rows for which a path of GROUP BY leads nowhere form a group of their own. Without GROUP BY all
    rows form one group, which can be empty.

    Raises:
        ArgumentInvalid: two members have the same name.
    """
    keys = [compile_path(path, members) for path in group_by]
    write = _compile_items(items, members)

    def aggregation(rows: Iterable[R]) -> list[JsonObject]:
        groups: dict[Any, list[R]] = {} if keys else {(): []}
        for row in rows:
            groups.setdefault(tuple([_alike(key(row)) for key in keys]), []).append(row)
        return list(map(write, groups.values()))

    return aggregation


def _compile_items(
    items: Sequence[Item], members: Members[R]
) -> Callable[[Sequence[R]], JsonObject]:
    """Return the function that writes the object of a group. A member has the name of its alias,
    else of its path.
    """
    readers: dict[str, Callable[[Sequence[R]], Any]] = {}
    for item in items:
        name = item.alias if item.alias is not None else _own_name(item, members)
        if name in readers:
            # What a real hub does is unknown. An error is better than a member lost in silence.
            raise ArgumentInvalid(f"BadRequest: two members have one name: {quoted(name)}")
        readers[name] = _compile_over_group(item, members)
    return lambda group: {
        name: value for name, read in readers.items() if (value := read(group)) is not UNDEFINED
    }


def _own_name(item: Item, members: Members[Any]) -> str:
    match item.value:
        case Path():
            return member_name(item.value, members)
        case Aggregate(function):
            return function.lower()  # a real hub's name is unknown; all samples have an alias
    raise AssertionError(f"{item} has no alias")


def _alike(value: Any) -> Any:
    """Return a hashable value that is equal for equal values: 1 and 1.0, but not 1 and true."""
    if kind(value) is Kind.NUMBER:
        return Kind.NUMBER, float(value)
    if isinstance(value, dict):
        return frozenset([(name, _alike(member)) for name, member in value.items()])
    if isinstance(value, list):
        return tuple([_alike(element) for element in value])
    return value


def _compile_over_group(item: Item, members: Members[R]) -> Callable[[Sequence[R]], Any]:
    match item.value:
        case Aggregate(path=None):
            return len
        case Aggregate(function, Path() as path):
            calculate, read = _AGGREGATES[function], compile_path(path, members)
            # Values that are not numbers are ignored.
            return lambda group: calculate(
                [value for row in group if kind(value := read(row)) is Kind.NUMBER]
            )
        case expression:
            value = compile_expression(expression, members)  # type: ignore[arg-type] # no aggregate
            return lambda group: value(group[0])


def _sum(numbers: Sequence[float]) -> float:
    return sum(map(float, numbers))


_AGGREGATES: dict[str, Callable[[Sequence[float]], Any]] = {
    "SUM": lambda numbers: finite(_sum(numbers)),
    "AVG": lambda numbers: finite(_sum(numbers) / len(numbers)) if numbers else UNDEFINED,
    "MIN": lambda numbers: min(numbers, default=UNDEFINED),
    "MAX": lambda numbers: max(numbers, default=UNDEFINED),
}
