"""AMQP's types as Python's; decoder.py and encoder.py turn them from bytes and into bytes.

Python's own types stand for the types of AMQP where they tell enough: None, bool, int (long), float
(double), str (string), bytes (binary), list, dict (map) and UUID. A class below stands for each
other type; it is a subclass, so the numbers, texts and keys compare as usual. Section numbers are
those of AMQP 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

UINT_MAX = 0xFFFF_FFFF


class UByte(int):
    """An unsigned integer of 8 bits (section 1.6.3)."""

    __slots__ = ()


class UShort(int):
    """An unsigned integer of 16 bits (section 1.6.4)."""

    __slots__ = ()


class UInt(int):
    """An unsigned integer of 32 bits (section 1.6.5)."""

    __slots__ = ()


class ULong(int):
    """An unsigned integer of 64 bits (section 1.6.6)."""

    __slots__ = ()


class Byte(int):
    """A signed integer of 8 bits (section 1.6.7)."""

    __slots__ = ()


class Short(int):
    """A signed integer of 16 bits (section 1.6.8)."""

    __slots__ = ()


class Int(int):
    """A signed integer of 32 bits (section 1.6.9); a plain int is a long (section 1.6.10)."""

    __slots__ = ()


class Float(float):
    """A number of IEEE 754 with 32 bits (section 1.6.11)."""

    __slots__ = ()


class Decimal32(bytes):
    """A decimal number (section 1.6.13), as its 4 bytes."""

    __slots__ = ()


class Decimal64(bytes):
    """A decimal number (section 1.6.14), as its 8 bytes."""

    __slots__ = ()


class Decimal128(bytes):
    """A decimal number (section 1.6.15), as its 16 bytes."""

    __slots__ = ()


class Char(str):
    """One character (section 1.6.16)."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since 1970 in UTC (section 1.6.17)."""

    __slots__ = ()


class Symbol(str):
    """A name in ASCII (section 1.6.21)."""

    __slots__ = ()


class Array(list[Any]):
    """Values of one type (section 1.6.24).

    Args:
        of: the class of the values, such as `Symbol` or `int`.
        values: the values; described ones without their descriptor.
        descriptor: the descriptor of all values, or None.
    """

    __slots__ = ("descriptor", "of")

    def __init__(self, of: type, values: Iterable[Any] = (), descriptor: Any = None) -> None:
        super().__init__(values)
        self.of = of
        self.descriptor = descriptor


class Described(Struct, frozen=True):
    """A value with a descriptor that says what it means (section 1.3)."""

    descriptor: Any
    value: Any


FIXED: dict[type, tuple[int, str]] = {
    UByte: (0x50, "B"),
    UShort: (0x60, "H"),
    UInt: (0x70, "I"),
    ULong: (0x80, "Q"),
    Byte: (0x51, "b"),
    Short: (0x61, "h"),
    Int: (0x71, "i"),
    int: (0x81, "q"),
    Float: (0x72, "f"),
    float: (0x82, "d"),
    Decimal32: (0x74, "4s"),
    Decimal64: (0x84, "8s"),
    Decimal128: (0x94, "16s"),
    Timestamp: (0x83, "q"),
}
"""The types of a fixed width: the constructor, and the layout of the value for `struct`."""
