"""The values of a query: their kinds, comparison, arithmetic and functions.

A value is a JSON value, or `UNDEFINED`. The rules are those of IoT Hub docs: query language. Where
the docs are silent, the rules are those of EdgeHub's routing (Azure IoT Edge, source), which has
the same expressions.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable
from types import NoneType
from typing import Any, NamedTuple

from emulator.hub.core.json import UNDEFINED, WrittenNumber

# Up to this value a double holds every integer.
_INTEGERS = 2**53


class Kind(enum.Enum):
    """The kind of a primitive value; values of different kinds are never compared."""

    BOOLEAN = "boolean"
    NUMBER = "number"
    STRING = "string"
    NULL = "null"


# By the exact type, because a Python boolean is an integer too.
KINDS: dict[type, Kind] = {
    bool: Kind.BOOLEAN,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    WrittenNumber: Kind.NUMBER,
    str: Kind.STRING,
    NoneType: Kind.NULL,
}

# Strings are ordered by the codes of their characters, and so are times, as ISO text.
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
    """Return the kind of a value; objects, arrays and `UNDEFINED` have no kind."""
    return KINDS.get(type(value))


def plain(number: float) -> float:
    """Return a calculated number in the form that JSON has for a double: 2, not 2.0."""
    number = float(number)
    return int(number) if number.is_integer() and abs(number) < _INTEGERS else number


def finite(number: float) -> Any:
    """Return a calculated number, or `UNDEFINED` if it is beyond a double."""
    return plain(number) if math.isfinite(number) else UNDEFINED


def compares(comparison: str, of: Kind) -> bool:
    """Return whether values of a kind can be compared so: booleans and null have no order."""
    return comparison in ("=", "!=") or of not in _UNORDERED


def calculate(calculation: str, left: object, right: object) -> Any:
    """Add, subtract, multiply, divide two numbers as doubles, or find the remainder.

    The result is `UNDEFINED` if an operand is not a number, for a division by zero, and if the
    result is beyond a double.
    """
    if not (kind(left) is kind(right) is Kind.NUMBER):
        return UNDEFINED
    try:
        return finite(_CALCULATIONS[calculation](float(left), float(right)))  # type: ignore[arg-type]
    except (ZeroDivisionError, ValueError):
        return UNDEFINED


class Function(NamedTuple):
    """A function of the language: its number of arguments, and its implementation."""

    arguments: int
    apply: Callable[..., Any]


def _of_strings(test: Callable[[str, str], bool]) -> Callable[[Any, Any], Any]:
    """Return the test of two strings, which is undefined for other values."""
    return lambda one, two: test(one, two) if type(one) is type(two) is str else UNDEFINED


def _array_contains(array: object, value: object) -> Any:
    """Return whether an element equals a value; objects and arrays equal no value."""
    if type(array) is not list or value is UNDEFINED:
        return UNDEFINED
    wanted = kind(value)
    if wanted is None:
        return False
    if wanted is Kind.NUMBER:
        number = float(value)  # type: ignore[arg-type] # a number
        return any(kind(element) is wanted and float(element) == number for element in array)
    return any(element == value and kind(element) is wanted for element in array)


# The docs name only IS_DEFINED. STARTSWITH and ENDSWITH work on a real hub, ARRAY_CONTAINS is in
# tests of the CLI, and queries in production use the types. A real hub refuses other functions,
# such as STARTS_WITH and CONTAINS: they exist in message routing only (seen on a real hub).
FUNCTIONS = {
    "IS_DEFINED": Function(1, lambda value: value is not UNDEFINED),
    "IS_NULL": Function(1, lambda value: value is None),
    "IS_BOOL": Function(1, lambda value: isinstance(value, bool)),
    "IS_NUMBER": Function(1, lambda value: kind(value) is Kind.NUMBER),
    "IS_STRING": Function(1, lambda value: isinstance(value, str)),
    "IS_OBJECT": Function(1, lambda value: isinstance(value, dict)),
    "IS_ARRAY": Function(1, lambda value: isinstance(value, list)),
    "IS_PRIMITIVE": Function(1, lambda value: kind(value) is not None),
    "STARTSWITH": Function(2, _of_strings(str.startswith)),
    "ENDSWITH": Function(2, _of_strings(str.endswith)),
    "ARRAY_CONTAINS": Function(2, _array_contains),
}
