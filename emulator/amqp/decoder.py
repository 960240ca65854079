"""Bytes to values of AMQP, strictly and within bounds. Section numbers are those of AMQP 1.0."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from uuid import UUID

from emulator.amqp.errors import DecodeError
from emulator.amqp.types import FIXED, Array, Char, Described, Int, Symbol, UByte, UInt, ULong

# How many lists, maps, arrays and described values can be inside each other. Ours: SDKs need 4.
DEPTH = 32

_Reader = Callable[[bytes, int, int, int], tuple[Any, int]]
"""Reads behind a constructor: data, position, end, depth; returns the value and its end."""


def decode(data: bytes, position: int = 0, end: int | None = None) -> tuple[Any, int]:
    """Decode one value (section 1.1).

    Readers of simple values do not look whether their bytes are there. What surrounds them does: it
    finds that they end behind its own end.

    Returns:
        the value, and the position behind it.

    Raises:
        DecodeError: the bytes before `end` are not such a value.
    """
    if end is None:
        end = len(data)
    try:
        value, position = _READERS[data[position]](data, position + 1, end, DEPTH)
    except (IndexError, struct.error):
        raise DecodeError("A value is truncated") from None
    except UnicodeDecodeError as error:
        raise DecodeError(f"A text is not {error.encoding}") from None
    if position > end:
        raise DecodeError("A value is truncated")
    return value, position


def _unknown(data: bytes, position: int, end: int, depth: int) -> tuple[Any, int]:
    raise DecodeError(f"Unknown constructor {data[position - 1]:#04x}")


def _constant(value: Any) -> _Reader:
    return lambda data, position, end, depth: (value, position)


def _byte(make: Callable[[int], Any]) -> _Reader:
    return lambda data, position, end, depth: (make(data[position]), position + 1)


def _small(make: type[int]) -> _Reader:
    """Read a number of one byte; the same object each time, of which the collector knows one."""
    values = tuple(map(make, range(256)))
    return lambda data, position, end, depth: (values[data[position]], position + 1)


def _fixed(layout: str, make: Callable[[Any], Any]) -> _Reader:
    """Read a value of a fixed width; `make` turns what `struct` returns into the value."""
    unpack, width = struct.Struct(f">{layout}").unpack_from, struct.calcsize(f">{layout}")
    return lambda data, position, end, depth: (make(unpack(data, position)[0]), position + width)


def _short(make: Callable[[bytes], Any]) -> _Reader:
    """Read a value behind its length in one byte."""

    def read(data: bytes, position: int, end: int, depth: int) -> tuple[Any, int]:
        stop = position + 1 + data[position]
        return make(data[position + 1 : stop]), stop

    return read


def _long(make: Callable[[bytes], Any]) -> _Reader:
    """Read a value behind its length in four bytes."""

    def read(data: bytes, position: int, end: int, depth: int) -> tuple[Any, int]:
        start = position + 4
        stop = start + int.from_bytes(data[position:start], "big")
        if stop > end:
            raise DecodeError("A value is truncated")
        return make(data[start:stop]), stop

    return read


def _boolean(value: int) -> bool:
    if value > 1:
        raise DecodeError(f"A boolean of {value:#04x}")
    return value == 1


def _char(value: int) -> Char:
    if value > 0x10FFFF or 0xD800 <= value < 0xE000:
        raise DecodeError(f"{value:#x} is not a character")
    return Char(chr(value))


def _symbol(value: bytes) -> Symbol:
    return Symbol(value.decode("ascii"))


# The names of properties and annotations come again and again; a short symbol has 255 bytes.
_short_symbol = lru_cache(maxsize=1024)(_symbol)


def _uuid(value: bytes) -> UUID:
    return UUID(bytes=value)


def _bounds(
    data: bytes, position: int, end: int, depth: int, width: int
) -> tuple[int, int, int, int]:
    """Read size and count of a compound value, and check them before any value is read.

    Each value of a list or map takes a byte at least. Values of an array can take none: more than
    the array has bytes are refused, so a count alone never makes work.

    Returns:
        the count, the start of the values, their end, and the depth that is left.
    """
    start = position + 2 * width
    if start > end or not depth:
        raise DecodeError("A value is truncated" if depth else f"More than {DEPTH} nested values")
    middle = position + width
    stop = middle + int.from_bytes(data[position:middle], "big")
    count = int.from_bytes(data[middle:start], "big")
    if not start <= stop <= end:
        raise DecodeError("The size of a list, map or array does not agree with its bytes")
    if count > stop - middle:
        raise DecodeError(f"{count} values in {stop - start} bytes")
    return count, start, stop, depth - 1


def _list(width: int) -> _Reader:
    def read(data: bytes, position: int, end: int, depth: int) -> tuple[list[Any], int]:
        count, position, stop, depth = _bounds(data, position, end, depth, width)
        values = []
        for _ in range(count):
            value, position = _READERS[data[position]](data, position + 1, stop, depth)
            values.append(value)
        if position != stop:
            raise DecodeError("A list has bytes behind its last value")
        return values, stop

    return read


def _map(width: int) -> _Reader:
    read_list = _list(width)

    def read(data: bytes, position: int, end: int, depth: int) -> tuple[dict[Any, Any], int]:
        items, stop = read_list(data, position, end, depth)
        if len(items) % 2:
            raise DecodeError("A map has a key without a value")
        try:
            values = dict(zip(items[::2], items[1::2], strict=True))
        except TypeError:
            raise DecodeError("The key of a map is a list, a map or an array") from None
        if 2 * len(values) != len(items):
            raise DecodeError("A map has a key twice")
        return values, stop

    return read


def _array(width: int) -> _Reader:
    def read(data: bytes, position: int, end: int, depth: int) -> tuple[Array, int]:
        count, position, stop, depth = _bounds(data, position, end, depth, width)
        if position == stop and not count:  # some encoders leave the constructor of no values out
            return Array(type(None)), stop
        descriptor = None
        if position < stop and data[position] == 0:
            descriptor, position = _READERS[data[position + 1]](data, position + 2, stop, depth)
        if position >= stop or data[position] == 0:
            raise DecodeError("An array without a constructor")
        reader, of = _READERS[data[position]], _CLASSES.get(data[position], type(None))
        position += 1
        values = Array(of, descriptor=descriptor)
        for _ in range(count):
            value, position = reader(data, position, stop, depth)
            values.append(value)
        if position != stop:
            raise DecodeError("An array has bytes behind its last value")
        return values, stop

    return read


def _described(data: bytes, position: int, end: int, depth: int) -> tuple[Described, int]:
    if not depth:
        raise DecodeError(f"More than {DEPTH} nested values")
    descriptor, position = _READERS[data[position]](data, position + 1, end, depth - 1)
    value, position = _READERS[data[position]](data, position + 1, end, depth - 1)
    return Described(descriptor, value), position


_CODES: dict[int, tuple[_Reader, type]] = {
    **{code: (_fixed(layout, cls), cls) for cls, (code, layout) in FIXED.items()},
    0x40: (_constant(None), type(None)),
    0x41: (_constant(True), bool),
    0x42: (_constant(False), bool),
    0x43: (_constant(UInt(0)), UInt),
    0x44: (_constant(ULong(0)), ULong),
    0x45: (lambda data, position, end, depth: ([], position), list),
    0x50: (_small(UByte), UByte),
    0x52: (_small(UInt), UInt),
    0x53: (_small(ULong), ULong),
    0x54: (_fixed("b", Int), Int),
    0x55: (_fixed("b", int), int),
    0x56: (_byte(_boolean), bool),
    0x73: (_fixed("I", _char), Char),
    0x98: (_fixed("16s", _uuid), UUID),
    0xA0: (_short(bytes), bytes),
    0xA1: (_short(bytes.decode), str),
    0xA3: (_short(_short_symbol), Symbol),
    0xB0: (_long(bytes), bytes),
    0xB1: (_long(bytes.decode), str),
    0xB3: (_long(_symbol), Symbol),
    0xC0: (_list(1), list),
    0xC1: (_map(1), dict),
    0xD0: (_list(4), list),
    0xD1: (_map(4), dict),
    0xE0: (_array(1), Array),
    0xF0: (_array(4), Array),
}
_CLASSES = {code: of for code, (_, of) in _CODES.items()}
_READERS: list[_Reader] = [
    _described if code == 0 else _CODES.get(code, (_unknown, None))[0] for code in range(256)
]
