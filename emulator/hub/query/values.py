"""What a query makes of values: of which kind one is, how two compare, what arithmetic gives.

A value is JSON's, or `UNDEFINED`, which is the answer where there is none. The rules are those of
IoT Hub docs: query language; where they are silent, those of EdgeHub's routing (Azure IoT Edge,
source), which has the same expressions.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable
from types import NoneType
from typing import Any, NamedTuple

from emulator.hub.core.json import UNDEFINED, WrittenNumber

# Up to here a double holds every integer.
_INTEGERS = 2**53


class Kind(enum.Enum):
    """What a primitive value is; values of two kinds are never compared."""

    BOOLEAN = "boolean"
    NUMBER = "number"
    STRING = "string"
    NULL = "null"


# By the exact type, because Python's booleans are integers too.
KINDS: dict[type, Kind] = {
    bool: Kind.BOOLEAN,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    WrittenNumber: Kind.NUMBER,
    str: Kind.STRING,
    NoneType: Kind.NULL,
}

# Strings are in the order of their characters' codes, and so are moments, as ISO text.
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNORDERED = (Kind.BOOLEAN, Kind.NULL)

# The remainder has the sign of the dividend, as .NET's and JavaScript's.
_CALCULATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
}


def kind(value: object) -> Kind | None:
    """Tell the kind of a value; objects, arrays and `UNDEFINED` have none."""
    return KINDS.get(type(value))


def plain(number: float) -> float:
    """Write a number that was calculated as a double is written in JSON: 2, not 2.0."""
    number = float(number)
    return int(number) if number.is_integer() and abs(number) < _INTEGERS else number


def compares(comparison: str, of: Kind) -> bool:
    """Say whether values of a kind can be compared so: booleans and null are in no order."""
    return comparison in ("=", "!=") or of not in _UNORDERED


def calculate(calculation: str, left: object, right: object) -> Any:
    """Add, subtract, multiply, divide two numbers as doubles, or find the remainder.

    `UNDEFINED` where one is no number, or the result is none: a division by zero, or beyond a
    double.
    """
    if not (kind(left) is kind(right) is Kind.NUMBER):
        return UNDEFINED
    try:
        result = _CALCULATIONS[calculation](float(left), float(right))  # type: ignore[arg-type]
    except (ZeroDivisionError, ValueError):
        return UNDEFINED
    return plain(result) if math.isfinite(result) else UNDEFINED


class Function(NamedTuple):
    """A function of the language: how many arguments it takes, and what it makes of them."""

    arguments: int
    apply: Callable[..., Any]


def _starts_with(text: object, start: object) -> Any:
    if not (isinstance(text, str) and isinstance(start, str)):
        return UNDEFINED
    return text.startswith(start)


def _ends_with(text: object, end: object) -> Any:
    if not (isinstance(text, str) and isinstance(end, str)):
        return UNDEFINED
    return text.endswith(end)


# IoT Hub docs name IS_DEFINED alone; STARTSWITH and ENDSWITH work on a real hub, and production
# queries ask for types. What else there is, such as STARTS_WITH and CONTAINS, it refuses: they are
# of message routing only (seen on a real hub).
FUNCTIONS = {
    "IS_DEFINED": Function(1, lambda value: value is not UNDEFINED),
    "IS_NULL": Function(1, lambda value: value is None),
    "IS_BOOL": Function(1, lambda value: isinstance(value, bool)),
    "IS_NUMBER": Function(1, lambda value: kind(value) is Kind.NUMBER),
    "IS_STRING": Function(1, lambda value: isinstance(value, str)),
    "IS_OBJECT": Function(1, lambda value: isinstance(value, dict)),
    "IS_ARRAY": Function(1, lambda value: isinstance(value, list)),
    "IS_PRIMITIVE": Function(1, lambda value: kind(value) is not None),
    "STARTSWITH": Function(2, _starts_with),
    "ENDSWITH": Function(2, _ends_with),
}
