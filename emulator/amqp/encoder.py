"""Values to bytes of AMQP, in their shortest form. Section numbers are those of AMQP 1.0."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from uuid import UUID

from emulator.amqp.types import FIXED, Array, Char, Described, Int, Symbol, UInt, ULong


def encode(value: Any) -> bytes:
    """Encode one value, in its shortest form.

    Raises:
        ValueError: a number, a text or a character is out of the range of its type.
        TypeError: the value is of a type without an encoding.
    """
    try:
        return WRITERS[type(value)](value)
    except KeyError as error:
        raise TypeError(f"{error} has no encoding in AMQP") from None
    except (struct.error, OverflowError):
        raise ValueError(f"{value!r} is out of the range of {type(value).__name__}") from None


def encode_annotations(values: dict[Any, Any]) -> bytes:
    """Encode a map whose keys are symbols, though they can be plain texts (section 3.2.10).

    Raises:
        ValueError, TypeError: as for `encode`.
    """
    parts: list[bytes] = []
    for key, value in values.items():
        parts += (encode_symbol(key) if isinstance(key, str) else encode(key), encode(value))
    return encode_map(parts, len(parts))


def encode_list(fields: Iterable[bytes], count: int) -> bytes:
    """Encode a list of values that are encoded already."""
    return _compound(0xC0, 0xD0, b"".join(fields), count) if count else b"\x45"


def encode_map(fields: Iterable[bytes], count: int) -> bytes:
    """Encode a map whose keys and values are encoded already; `count` counts both."""
    return _compound(0xC1, 0xD1, b"".join(fields), count)


def encode_binary(data: bytes) -> bytes:
    """Encode binary data (section 1.6.19)."""
    return _sized(0xA0, 0xB0, data)


def _compound(short: int, long: int, body: bytes, count: int) -> bytes:
    size = len(body) + 1
    if size < 256 and count < 256:
        return bytes((short, size, count)) + body
    return b"%c%b" % (long, _counted(body, count))


def _counted(body: bytes, count: int) -> bytes:
    return _TWO_UINTS(len(body) + 4, count) + body


_TWO_UINTS = struct.Struct(">II").pack


def _sized(short: int, long: int, data: bytes) -> bytes:
    size = len(data)
    return b"%c%c%b" % (short, size, data) if size < 256 else b"%c%b" % (long, _prefixed(data))


def _prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _packer(code: int, layout: str) -> Callable[[Any], bytes]:
    """Write constructor and value in one step."""
    pack = struct.Struct(f">B{layout}").pack
    return lambda value: pack(code, value)


_FIXED = {cls: _packer(code, layout) for cls, (code, layout) in FIXED.items()}


def _unsigned(cls: type[int], zero: bytes, short: int) -> Callable[[int], bytes]:
    """Write 0 without a value, and small numbers in one byte."""
    long = _FIXED[cls]

    def write(value: int) -> bytes:
        if 0 < value < 256:
            return b"%c%c" % (short, value)
        return long(value) if value else zero

    return write


def _signed(cls: type[int], short: int) -> Callable[[int], bytes]:
    """Write small numbers in one byte."""
    long = _FIXED[cls]
    return lambda value: b"%c%c" % (short, value & 0xFF) if -128 <= value < 128 else long(value)


def _encode_char(value: str) -> bytes:
    return b"\x73" + ord(value).to_bytes(4, "big")


@lru_cache(maxsize=1024)
def _encode_short_symbol(value: str) -> bytes:
    return _sized(0xA3, 0xB3, value.encode("ascii"))


def encode_symbol(value: str) -> bytes:
    """Encode a text as a symbol (section 1.6.21); short ones come again and again."""
    if len(value) < 256:
        return _encode_short_symbol(value)
    return _sized(0xA3, 0xB3, value.encode("ascii"))


def _map_body(value: dict[Any, Any]) -> bytes:
    return b"".join([WRITERS[type(each)](each) for item in value.items() for each in item])


def _encode_described(value: Described) -> bytes:
    return b"\x00" + encode(value.descriptor) + encode(value.value)


def _array_body(value: Array) -> bytes:
    """Write a constructor, and behind it each value without its own (section 1.6.24)."""
    code, write = _ELEMENTS[value.of]
    start = b"" if value.descriptor is None else b"\x00" + encode(value.descriptor)
    return start + code + b"".join([write(each) for each in value])


# How each type is written. A caller that knows the type saves the look-up of `encode`.
WRITERS: dict[type, Callable[[Any], bytes]] = {
    **_FIXED,
    type(None): lambda value: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    UInt: _unsigned(UInt, b"\x43", 0x52),
    ULong: _unsigned(ULong, b"\x44", 0x53),
    Int: _signed(Int, 0x54),
    int: _signed(int, 0x55),
    Char: _encode_char,
    UUID: lambda value: b"\x98" + value.bytes,
    bytes: encode_binary,
    str: lambda value: _sized(0xA1, 0xB1, value.encode()),
    Symbol: encode_symbol,
    list: lambda value: encode_list(map(encode, value), len(value)),
    dict: lambda value: encode_map((_map_body(value),), 2 * len(value)),
    Array: lambda value: _compound(0xE0, 0xF0, _array_body(value), len(value)),
    Described: _encode_described,
}


# The constructor of an array's values, and how each value is written behind it.
_ELEMENTS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    **{
        cls: (bytes((code,)), struct.Struct(f">{layout}").pack)
        for cls, (code, layout) in FIXED.items()
    },
    type(None): (b"\x40", lambda value: b""),
    bool: (b"\x56", struct.Struct(">B").pack),
    Char: (b"\x73", lambda value: _encode_char(value)[1:]),
    UUID: (b"\x98", lambda value: value.bytes),
    bytes: (b"\xb0", _prefixed),
    str: (b"\xb1", lambda value: _prefixed(value.encode())),
    Symbol: (b"\xb3", lambda value: _prefixed(value.encode("ascii"))),
    list: (b"\xd0", lambda value: _counted(b"".join(map(encode, value)), len(value))),
    dict: (b"\xd1", lambda value: _counted(_map_body(value), 2 * len(value))),
    Array: (b"\xf0", lambda value: _counted(_array_body(value), len(value))),
}
