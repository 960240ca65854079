"""The tree of a query: one small frozen class for each rule of the grammar."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

# How many characters of a query the text of an error repeats.
_SHOWN = 40


class Source(enum.Enum):
    """The collection that a query reads; the value is its name in a query."""

    DEVICES = "devices"
    MODULES = "devices.modules"
    JOBS = "devices.jobs"


class Constant(Struct, frozen=True):
    """A value: boolean, number, string, None for `null`, or `UNDEFINED`."""

    value: Any


class Array(Struct, frozen=True):
    """`['wired', 'wifi']`."""

    elements: tuple[Any, ...]


class Path(Struct, frozen=True):
    """`tags.[[group]].list[0]`: names of members, and places in arrays.

    The name of the source, as in `devices.tags.x`, is not a part of the path.
    """

    parts: tuple[str | int, ...]


class Not(Struct, frozen=True):
    """`NOT operand`."""

    operand: Expression


class And(Struct, frozen=True):
    """`a AND b AND c`."""

    operands: tuple[Expression, ...]


class Or(Struct, frozen=True):
    """`a OR b OR c`."""

    operands: tuple[Expression, ...]


class Comparison(Struct, frozen=True):
    """`left operator right`; the operator is one of `= != < <= > >=`."""

    left: Expression
    operator: str
    right: Expression


class Membership(Struct, frozen=True):
    """`value IN array`."""

    value: Expression
    array: Expression


class Arithmetic(Struct, frozen=True):
    """`first + a - b`, from the left; the operators are `+ - * / %`. `-a` is `0 - a`."""

    first: Expression
    steps: tuple[tuple[str, Expression], ...]


class Call(Struct, frozen=True):
    """`IS_DEFINED(tags.x)`; the function's name is in capitals."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Constant | Array | Path | Not | And | Or | Comparison | Membership | Arithmetic | Call


class Aggregate(Struct, frozen=True):
    """`AVG(tags.x)`: one value for several rows; COUNT has no path."""

    function: str
    path: Path | None


class Item(Struct, frozen=True):
    """One member of a projection; without an alias it has the name of its path."""

    value: Expression | Aggregate
    alias: str | None


class Query(Struct, frozen=True):
    """A whole query; `items` is None for `SELECT *`, and `top` is None without a limit."""

    source: Source
    items: tuple[Item, ...] | None = None
    top: int | None = None
    where: Expression | None = None
    group_by: tuple[Path, ...] = ()

    @property
    def aggregates(self) -> bool:
        """Whether a row of the answer stands for several rows."""
        values = [item.value for item in self.items or ()]
        return bool(self.group_by) or any(isinstance(value, Aggregate) for value in values)


def walk(expression: Expression) -> Iterator[Expression]:
    """Return an expression, and all expressions in it."""
    yield expression
    parts: Iterable[Expression] = ()
    match expression:
        case Not(operand):
            parts = (operand,)
        case And(operands) | Or(operands) | Call(_, operands):
            parts = operands
        case Comparison(left, _, right) | Membership(left, right):
            parts = (left, right)
        case Arithmetic(first, steps):
            parts = (first, *(operand for _, operand in steps))
    for part in parts:
        yield from walk(part)


def expressions(query: Query) -> Iterator[Expression]:
    """Return the expressions that a query has for each row."""
    for item in query.items or ():
        value = item.value.path if isinstance(item.value, Aggregate) else item.value
        if value is not None:
            yield value
    yield from query.group_by
    if query.where is not None:
        yield query.where


def quoted(part: str) -> str:
    """Quote a part of a query in an error. The SDK for Node splits the text at semicolons."""
    if part == ";":
        return "a semicolon"
    shown = part if len(part) <= _SHOWN else f"{part[:_SHOWN]}..."
    return f"'{shown.replace(';', ',')}'"
