"""JSON as the hub keeps it.

A number keeps its text: `1.0` stays `1.0`, `1e5` stays `1e5` (seen on a real hub). NaN, Infinity
and text that nests too deep are invalid.
"""

from __future__ import annotations

import codecs
import enum
import functools
import json
from typing import Any, NoReturn

import orjson
from msgspec import Struct

# orjson writes at most 254 levels. `loads` tries to write a value of more levels than this, inside
# as many levels as the documents around it can have.
_DEEP = 200
_ROOM = 10
# Ours: how many values a text can have. A million take seconds, in which no device gets an answer.
_VALUES = 250_000

# `Any`, because JSON values nest in each other.
JsonObject = dict[str, Any]


class Undefined(enum.Enum):
    """The type of `UNDEFINED`, which stands for a missing member of a document."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED = Undefined.UNDEFINED


class WrittenNumber(float):
    """A number whose text Python would change: `1.50`, `1e5`, `-0`, 30 digits."""

    __slots__ = ("text",)
    text: str


class WrittenJson(Struct, frozen=True):
    """JSON text that is written as it is, and not parsed."""

    text: bytes


def written(text: str) -> WrittenNumber:
    """Return the number of a text, which it keeps."""
    number = WrittenNumber(text)
    number.text = text
    return number


def _float(text: str) -> float:
    number = float(text)
    # orjson writes exponents in another way.
    return number if repr(number) == text and "e" not in text else written(text)


def _int(text: str) -> int | WrittenNumber:
    # 18 digits fit the 64 bits that orjson writes; Python's int() accepts at most 4,300 digits.
    return written(text) if len(text) > 18 or text == "-0" else int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON value")


_decoder = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_refuse_constant)


def loads(text: bytes | str) -> Any:
    """Parse UTF-8 JSON text.

    Raises:
        ValueError: the text is not JSON or not UTF-8, or has more than 250,000 values, or `dumps`
            could not write the value: it nests deeper than about 240 levels, or has half of a
            surrogate pair.
    """
    if isinstance(text, str):
        text.encode()
    else:
        text = text.removeprefix(codecs.BOM_UTF8).decode()
    opened = text.count("[") + text.count("{")
    if opened + text.count(",") > _VALUES:
        raise ValueError(f"it has more than {_VALUES} values")
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if "\\u" in text or opened > _DEEP:
        check_writable(value)
    return value


def check_writable(value: object) -> None:
    """Check that `dumps` can write a value, also inside the documents around it.

    Raises:
        ValueError: it can't.
    """
    try:
        dumps(functools.reduce(lambda inner, _: [inner], range(_ROOM), value))
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None


def is_json(text: bytes) -> bool:
    """Return whether a text is JSON for every reader.

    Unlike `loads` it has no limit for the number of values, and half of a surrogate pair is valid.
    """
    try:
        orjson.loads(text)  # quick, and right for nearly every text
    except orjson.JSONDecodeError:
        try:
            _decoder.decode(text.decode())
        except (ValueError, RecursionError):
            return False
    return True


def equal(one: Any, other: Any) -> bool:
    """Return whether JSON values are equal; a boolean never equals a number (RFC 6902)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def includes(value: Any, part: Any) -> bool:
    """Return whether a JSON value includes another one.

    An object includes an object of some of its members; null stands for a member that is null or
    missing. Other values include their equals.
    """
    if isinstance(value, dict) and isinstance(part, dict):
        return all(includes(value.get(name), each) for name, each in part.items())
    if isinstance(value, list) and isinstance(part, list):
        return len(value) == len(part) and all(map(includes, value, part))
    return equal(value, part)


def _as_written(value: object) -> orjson.Fragment:
    if isinstance(value, (WrittenNumber, WrittenJson)):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def dumps(value: object) -> bytes:
    """Return a value as compact UTF-8 JSON; numbers keep the text that `loads` parsed."""
    return orjson.dumps(value, default=_as_written)
