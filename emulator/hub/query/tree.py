"""What a query says, as a tree: one small frozen class for each thing in the grammar."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# How much of a query an error's text repeats.
_SHOWN = 40


class Source(enum.Enum):
    """What a query goes through; the value is its name in a query."""

    DEVICES = "devices"
    MODULES = "devices.modules"
    JOBS = "devices.jobs"


@dataclass(frozen=True)
class Constant:
    """A value: boolean, number, string, None for `null`, or `UNDEFINED`."""

    value: Any


@dataclass(frozen=True)
class Array:
    """`['wired', 'wifi']`."""

    elements: tuple[Any, ...]


@dataclass(frozen=True)
class Path:
    """`tags.[[group]].list[0]`: names of members, and places in arrays.

    The name of the source before it, as in `devices.tags.x`, is not a part of it.
    """

    parts: tuple[str | int, ...]


@dataclass(frozen=True)
class Not:
    """`NOT operand`."""

    operand: Expression


@dataclass(frozen=True)
class Negative:
    """`-operand`."""

    operand: Expression


@dataclass(frozen=True)
class And:
    """`a AND b AND c`."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Or:
    """`a OR b OR c`."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Comparison:
    """`left operator right`; the operator is one of `= != < <= > >=`."""

    left: Expression
    operator: str
    right: Expression


@dataclass(frozen=True)
class Membership:
    """`value IN array`."""

    value: Expression
    array: Expression


@dataclass(frozen=True)
class Arithmetic:
    """`first + a - b`, from the left; an operator is one of `+ - * / %`."""

    first: Expression
    steps: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True)
class Call:
    """`IS_DEFINED(tags.x)`; the function's name is in capitals."""

    function: str
    arguments: tuple[Expression, ...]


Expression = (
    Constant
    | Array
    | Path
    | Not
    | Negative
    | And
    | Or
    | Comparison
    | Membership
    | Arithmetic
    | Call
)


@dataclass(frozen=True)
class Aggregate:
    """`AVG(tags.x)`: one value of many rows; COUNT has no path."""

    function: str
    path: Path | None


@dataclass(frozen=True)
class Item:
    """One member of a projection; without an alias it is named by what it reads."""

    value: Expression | Aggregate
    alias: str | None


@dataclass(frozen=True)
class Query:
    """A whole query; `items` is None for `SELECT *`, `top` where nothing limits the rows."""

    source: Source
    items: tuple[Item, ...] | None = None
    top: int | None = None
    where: Expression | None = None
    group_by: tuple[Path, ...] = ()

    @property
    def aggregates(self) -> bool:
        """Whether a row of the answer is made of many."""
        return bool(self.group_by) or any(
            isinstance(item.value, Aggregate) for item in self.items or ()
        )


def paths(expression: Expression) -> Iterator[Path]:
    """Go through the paths that an expression reads."""
    match expression:
        case Path():
            yield expression
        case Not(operand) | Negative(operand):
            yield from paths(operand)
        case And(operands) | Or(operands) | Call(_, operands):
            for each in operands:
                yield from paths(each)
        case Comparison(left, _, right) | Membership(left, right):
            yield from paths(left)
            yield from paths(right)
        case Arithmetic(first, steps):
            yield from paths(first)
            for _, operand in steps:
                yield from paths(operand)


def quoted(part: str) -> str:
    """Quote a part of a query in an error's text, which the SDK for Node splits at semicolons."""
    if part == ";":
        return "a semicolon"
    shown = part if len(part) <= _SHOWN else f"{part[:_SHOWN]}..."
    return f"'{shown.replace(';', ',')}'"
