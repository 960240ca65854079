"""Projections and aggregations: the rows of a query other than SELECT *."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, JsonObject
from emulator.hub.core.places import Place
from emulator.hub.query.expressions import Members, R, compile_expression, compile_path, member_name
from emulator.hub.query.tree import Aggregate, Item, Path, quoted
from emulator.hub.query.values import Kind, finite, kind


def compile_projection(items: Sequence[Item], members: Members[R]) -> Callable[[R], JsonObject]:
    """Return the function that writes the object of a row; undefined members are left out.

    Raises:
        ArgumentInvalid: two members have the same name.
    """
    readers = _named(items, members)
    return lambda row: {
        name: value for name, read in readers.items() if (value := read(row)) is not UNDEFINED
    }


class Aggregation(Generic[R]):
    """One object for each group of rows.

    Rows for which a path of GROUP BY leads nowhere form a group of their own. Without GROUP BY all
    rows form one group, which can be empty.

    Raises:
        ArgumentInvalid: two members have the same name; or the groups are too many.
    """

    def __init__(
        self, items: Sequence[Item], group_by: Sequence[Path], members: Members[R]
    ) -> None:
        self._keys = [compile_path(path, members) for path in group_by]
        readers = _named(items, members)
        self._names, self._readers = list(readers), list(readers.values())
        self._functions = [
            item.value.function if isinstance(item.value, Aggregate) else "" for item in items
        ]
        self._groups: dict[Any, tuple[Place, list[_Column]]] = {}
        if not self._keys:
            self._group((), ())

    def add(self, place: Place, row: R) -> None:
        """Add a row; the place of the first one is the place of its group."""
        key = tuple([_alike(read(row)) for read in self._keys])
        columns = self._groups[key][1] if key in self._groups else self._group(key, place)
        for column, read in zip(columns, self._readers, strict=True):
            column.add(read(row))

    def rows(self) -> Iterator[tuple[Place, JsonObject]]:
        """Return the objects of the groups, with their places; undefined members are left out."""
        for place, columns in self._groups.values():
            cells = zip(self._names, columns, strict=True)
            values = ((name, column.result()) for name, column in cells)
            yield place, {name: value for name, value in values if value is not UNDEFINED}

    def _group(self, key: object, place: Place) -> list[_Column]:
        columns = [_COLUMNS.get(function, _Numbers)(function) for function in self._functions]
        self._groups[key] = place, columns
        if len(self._groups) * len(columns) > limits.QUERY_CELLS:
            raise ArgumentInvalid(
                f"BadRequest: the answer has more than {limits.QUERY_CELLS} values. Use a "
                "condition, or a path with fewer values in GROUP BY"
            )
        return columns


class _Column:
    """A member of a group: the value of the first row, which all rows of the group have."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._value: Any = None
        self._rows = 0

    def add(self, value: Any) -> None:
        if not self._rows:
            self._rows, self._value = 1, value

    def result(self) -> Any:
        return self._value


class _Count(_Column):
    """The number of the rows."""

    def add(self, value: Any) -> None:
        self._rows += 1

    def result(self) -> Any:
        return self._rows


class _Numbers(_Column):
    """What the numbers amount to; other values are ignored."""

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self._total = 0.0
        self._least: Any = UNDEFINED
        self._greatest: Any = UNDEFINED

    def add(self, value: Any) -> None:
        if kind(value) is Kind.NUMBER:
            self._rows += 1
            self._total += float(value)
            self._least = value if self._least is UNDEFINED else min(self._least, value)
            self._greatest = value if self._greatest is UNDEFINED else max(self._greatest, value)

    def result(self) -> Any:
        match self._function:
            case "SUM":
                return finite(self._total)
            case "AVG":
                return finite(self._total / self._rows) if self._rows else UNDEFINED
            case "MIN":
                return self._least
        return self._greatest


_COLUMNS = {"": _Column, "COUNT": _Count}


def _named(items: Sequence[Item], members: Members[R]) -> dict[str, Callable[[R], Any]]:
    """Return the readers of the members of an object, by name: the alias, else that of the path.

    An aggregate without an alias is `$1`, the next one `$2` (tests of the CLI for IoT Hub).
    """
    readers: dict[str, Callable[[R], Any]] = {}
    unnamed = 0
    for item in items:
        if item.alias is not None:
            name = item.alias
        elif isinstance(item.value, Path):
            name = member_name(item.value, members)
        else:
            unnamed += 1
            name = f"${unnamed}"
        if name in readers:
            # What a real hub does is unknown. An error is better than a member lost in silence.
            raise ArgumentInvalid(f"BadRequest: two members have one name: {quoted(name)}")
        value = item.value.path if isinstance(item.value, Aggregate) else item.value
        readers[name] = (lambda row: None) if value is None else compile_expression(value, members)
    return readers


def _alike(value: Any) -> Any:
    """Return a hashable value that is equal for equal values: 1 and 1.0, but not 1 and true."""
    if kind(value) is Kind.NUMBER:
        return Kind.NUMBER, float(value)
    if isinstance(value, dict):
        return frozenset([(name, _alike(member)) for name, member in value.items()])
    if isinstance(value, list):
        return tuple([_alike(element) for element in value])
    return value
