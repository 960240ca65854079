"""JSON as the hub keeps it: a number comes back as it was written (`1.0` stays `1.0`, `1e5` stays
`1e5`; seen on a real hub), NaN and Infinity are no JSON, and text that nests beyond reason is an
error like any other.
"""

from __future__ import annotations

import codecs
import enum
import functools
import json
from typing import Any, NoReturn

import orjson

# orjson writes no more than 254 levels. What nests this deep is tried, with room for the documents
# that it may become a part of.
_DEEP = 200
_ROOM = 10

# What a JSON text holds; `Any` because JSON values nest in each other.
JsonObject = dict[str, Any]


class Undefined(enum.Enum):
    """The type of `UNDEFINED`: what a document has in the place of a member that isn't there."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED = Undefined.UNDEFINED


class WrittenNumber(float):
    """A number whose text Python would not write back the same: `1.50`, `1e5`, `-0`, 30 digits."""

    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        """Keep `text`, and be its value as a float."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _float(text: str) -> float:
    number = float(text)
    # Exponents are kept as text because orjson spells them in a way of its own.
    plain = "e" not in text and "E" not in text and repr(number) == text
    return number if plain else WrittenNumber(text)


def _int(text: str) -> int | WrittenNumber:
    # 18 digits fit the 64 bits that orjson writes; Python's int() limits itself to 4,300 digits.
    if len(text) > 18 or text == "-0":
        return WrittenNumber(text)
    return int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON value")


_decoder = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_refuse_constant)


def loads(text: bytes | str) -> Any:
    """Parse UTF-8 JSON text.

    Raises:
        ValueError: it is not JSON, not UTF-8, or could not be written again: it nests deeper than
            about 240 levels, or holds half of a surrogate pair.
    """
    if isinstance(text, str):
        text.encode()
    else:
        text = text.removeprefix(codecs.BOM_UTF8).decode()
    try:
        value = _decoder.decode(text)
        if "\\u" in text or text.count("[") + text.count("{") > _DEEP:
            dumps(functools.reduce(lambda inner, _: [inner], range(_ROOM), value))
    except RecursionError:
        raise ValueError("the JSON nests too deep") from None
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None
    return value


def _as_written(value: object) -> orjson.Fragment:
    if isinstance(value, WrittenNumber):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def dumps(value: object) -> bytes:
    """Write a value as compact UTF-8 JSON, numbers as `loads` found them."""
    return orjson.dumps(value, default=_as_written)
