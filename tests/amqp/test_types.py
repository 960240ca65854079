"""The types of AMQP, as tables: vectors of others, both ways, and bytes that are refused."""

from __future__ import annotations

import math
import struct
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.amqp.decoder import DEPTH, decode
from emulator.amqp.encoder import encode
from emulator.amqp.errors import DecodeError
from emulator.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    Described,
    Float,
    Int,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def decode_all(data: bytes) -> list[Any]:
    values, position = [], 0
    while position < len(data):
        value, position = decode(data, position)
        values.append(value)
    return values


def same(actual: Any, expected: Any) -> bool:
    """Compare values with their types, which subclasses of int and str would hide."""
    if type(actual) is not type(expected):
        return False
    if isinstance(actual, Array):
        if (actual.of, actual.descriptor) != (expected.of, expected.descriptor):
            return False
    elif isinstance(actual, Described):
        return same([actual.descriptor, actual.value], [expected.descriptor, expected.value])
    if isinstance(actual, list):
        return len(actual) == len(expected) and all(map(same, actual, expected))
    if isinstance(actual, dict):
        return same([*actual.items()], [*expected.items()])
    if isinstance(actual, tuple):
        return same([*actual], [*expected])
    if isinstance(actual, float) and math.isnan(expected):
        return math.isnan(actual)
    return bool(actual == expected)


# The files tests/interop/*.amqp of Apache Qpid Proton, and what its tests say is in them.
_INTEROP = {
    "null": ("40", [None]),
    "primitives": (
        "41 42 502a 60002a 61ffd6 7000003039 71ffffcfc7 800000000000003039 81ffffffffffffcfc7"
        " 723e000000 823fc0000000000000",
        [
            *(True, False, UByte(42), UShort(42), Short(-42), UInt(12345), Int(-12345)),
            *(ULong(12345), -12345, Float(0.125), 0.125),
        ],
    ),
    "strings": (
        "a00861626300 64656667 a10761626364656667 a30761626364656667 a000 a100 a300",
        [b"abc\0defg", "abcdefg", Symbol("abcdefg"), b"", "", Symbol("")],
    ),
    "described": (
        "00a30e666f6f2d64657363726970746f72a109666f6f2d76616c7565 00540c540d",
        [Described(Symbol("foo-descriptor"), "foo-value"), Described(Int(12), Int(13))],
    ),
    "described_array": (
        "f0000000390000000a 00a309696e742d6172726179 71"
        + "".join(f"{number:08x}" for number in range(10)),
        [Array(Int, map(Int, range(10)), Symbol("int-array"))],
    ),
    "arrays": (
        "f00000019500000064 71"
        + "".join(f"{number:08x}" for number in range(100))
        + "f00000001400000003 b1 0000000161 0000000162 0000000163 f00000000500000000 71",
        [Array(Int, map(Int, range(100))), Array(str, ["a", "b", "c"]), Array(Int)],
    ),
    "lists": ("d00000000c00000003 5420 a103666f6f 41 45", [[Int(32), "foo", True], []]),
    "maps": (
        "d10000001b00000006 a1057468726565 5403 a10374776f 5402 a1036f6e65 5401"
        "d10000001b00000006 5401 a1036f6e65 5402 a10374776f 5403 a1057468726565"
        "d10000000400000000",
        [
            {"three": Int(3), "two": Int(2), "one": Int(1)},
            {Int(1): "one", Int(2): "two", Int(3): "three"},
            {},
        ],
    ),
}


@pytest.mark.parametrize(("data", "values"), _INTEROP.values(), ids=_INTEROP)
def test_the_vectors_of_qpid_proton(data: str, values: list[Any]) -> None:
    assert same(decode_all(bytes.fromhex(data)), values)
    assert same(decode_all(b"".join(map(encode, values))), values)


# The encodings of section 1.6; the first of a value is the one that is written.
_VALUES: list[tuple[Any, str, *tuple[str, ...]]] = [
    (None, "40"),
    (True, "41", "5601"),
    (False, "42", "5600"),
    (UByte(255), "50ff"),
    (UShort(0x1234), "601234"),
    (UInt(0), "43", "5200", "7000000000"),
    (UInt(255), "52ff", "70000000ff"),
    (UInt(0xFFFFFFFF), "70ffffffff"),
    (ULong(0), "44", "5300", "800000000000000000"),
    (ULong(255), "53ff", "8000000000000000ff"),
    (ULong(2**64 - 1), "80ffffffffffffffff"),
    (Byte(-128), "5180"),
    (Short(-2), "61fffe"),
    (Int(-128), "5480", "71ffffff80"),
    (Int(127), "547f"),
    (Int(128), "7100000080"),
    (Int(-(2**31)), "7180000000"),
    (-1, "55ff", "81ffffffffffffffff"),
    (128, "810000000000000080"),
    (2**63 - 1, "817fffffffffffffff"),
    (Float(-1.5), "72bfc00000"),
    (1e300, "827e37e43c8800759c"),
    (Decimal32(b"1234"), "7431323334"),
    (Decimal64(b"12345678"), "843132333435363738"),
    (Decimal128(bytes(16)), "94" + "00" * 16),
    (Char("a"), "7300000061"),
    (Char("\U0010ffff"), "730010ffff"),
    (Timestamp(-1), "83ffffffffffffffff"),
    (Timestamp(1311704463521), "830000013167adb8a1"),
    (_ID, "9800112233445566778899aabbccddeeff"),
    (b"ab", "a0026162", "b0000000026162"),
    (b"a" * 256, "b000000100" + "61" * 256),
    ("é", "a102c3a9", "b100000002c3a9"),
    ("a" * 300, "b10000012c" + "61" * 300),
    (Symbol("ab"), "a3026162", "b3000000026162"),
    (Symbol("a" * 256), "b300000100" + "61" * 256),
    ([], "45", "c00100", "d00000000400000000"),
    ([None, "a"], "c0050240a10161", "d00000000800000002 40a10161"),
    ([None] * 255, "d00000010300 0000ff" + "40" * 255),
    ({}, "c10100", "d10000000400000000"),
    ({Symbol("a"): 1}, "c10602a301615501"),
    (Described(ULong(0x24), []), "00532445"),
    (
        Array(Symbol, [Symbol("a"), Symbol("b")]),
        "e00c02b3 0000000161 0000000162",
        "e00602a301610162",
    ),
    (Array(bool, [True, False]), "e00402560100"),
    (Array(type(None), [None]), "e0020140"),
    (Array(list, [[], [1]]), "e01402d0 0000000400000000 000000060000000155 01"),
    (Array(dict, [{"a": 1}]), "e00f01d1 00000009 00000002 a1016155 01"),
    (Array(Array, [Array(UByte, [UByte(7)])]), "e00c01f0 0000000600000001 50 07"),
    (Array(UUID, [_ID]), "e0120198" + _ID.hex),
    (Array(ULong, [ULong(1)], ULong(5)), "e00d01 005305 80 0000000000000001"),
]


@pytest.mark.parametrize(("value", "data", "others"), [(v, d, o) for v, d, *o in _VALUES])
def test_each_encoding(value: Any, data: str, others: list[str]) -> None:
    assert encode(value).hex() == bytes.fromhex(data).hex()
    for each in (data, *others):
        encoded = bytes.fromhex(each)
        found, position = decode(encoded)
        assert same(found, value)
        assert position == len(encoded)


@pytest.mark.parametrize("value", [value for value, *_ in _VALUES], ids=repr)
def test_a_truncated_value_is_refused(value: Any) -> None:
    data = encode(value)
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode(data[:end])
        with pytest.raises(DecodeError):  # the bytes behind belong to something else
            decode(data + bytes(8), 0, end)


_MALFORMED = {
    "an unknown constructor": "3f",
    "a boolean of 2": "5602",
    "a character beyond Unicode": "7300110000",
    "a surrogate": "730000d800",
    "a string that is not UTF-8": "a101ff",
    "a symbol that is not ASCII": "a302c3a9",
    "a string longer than its bytes": "b1ffffffff61",
    "a list with a size of 4 GB": "d0ffffffff00000000",
    "a list with 4 billion values": "d000000004ffffffff",
    "a list with more values than bytes": "c003ff4040",
    "a list with a size below its count": "c00002",
    "a list with bytes behind its values": "c003014040",
    "a list whose last value is too long": "c00501a10461626364",
    "a list inside a list that is too long": "c00401c00a0040",
    "a map with a key alone": "c1020140",
    "a map with an odd count": "c104034040 40",
    "a map with a key twice": "c1090455015501 55015502",
    "a map with a list as a key": "c103024540",
    "an array of 4 billion nulls": "f000000005ffffffff40",
    "an array of 4 billion empty lists": "f000000005ffffffff45",
    "an array of 100 nulls in a byte": "e0026440",
    "an array without a constructor": "e00101",
    "an array of a described constructor twice": "e0080100530500530581",
    "an array with bytes behind its values": "e004015001 02",
    "a described value without a value": "005301",
    "a described value without a descriptor": "00",
    "lists, too deep": "c0ff01" * 40 + "40",
    "descriptors, too deep": "00" * 100_000,
    "described values, too deep": "005301" * 100_000,
    "arrays, too deep": "".join(f"f0{5 + 9 * n:08x}00000001" for n in range(40, 0, -1)) + "f0",
}


@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED)
def test_malformed_values_are_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(data))


def _nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def test_values_can_be_nested_up_to_a_limit() -> None:
    assert decode(encode(_nested(DEPTH)))[0] == _nested(DEPTH)
    with pytest.raises(DecodeError, match="nested"):
        decode(encode(_nested(DEPTH + 1)))


def test_an_array_of_no_values_can_lack_its_constructor() -> None:
    assert decode(bytes.fromhex("e00100"))[0] == []


@pytest.mark.parametrize(
    "value",
    [
        *(UByte(256), UByte(-1), UShort(65536), UInt(2**32), UInt(-1), ULong(2**64), Int(2**31)),
        *(2**63, Byte(128), Short(2**15), Float(1e300), Timestamp(2**63), Symbol("é"), "\ud800"),
        *(Array(UByte, [256]), [UInt(-5)]),
    ],
    ids=repr,
)
def test_values_out_of_range_are_not_encoded(value: Any) -> None:
    with pytest.raises(ValueError):
        encode(value)


@pytest.mark.parametrize("value", [object(), (1,), {1}, [object()], Array(object, [1])])
def test_values_of_other_types_are_not_encoded(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(value)


# --- by chance

_FLOATS = st.floats(width=32).map(Float)
_HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 2**8 - 1).map(UByte),
    st.integers(0, 2**16 - 1).map(UShort),
    st.integers(0, 2**32 - 1).map(UInt),
    st.integers(0, 2**64 - 1).map(ULong),
    st.integers(-(2**7), 2**7 - 1).map(Byte),
    st.integers(-(2**15), 2**15 - 1).map(Short),
    st.integers(-(2**31), 2**31 - 1).map(Int),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Timestamp),
    st.characters(codec="utf-8").map(Char),
    st.uuids(),
    st.binary(max_size=300),
    st.text(max_size=300),
    st.text(st.characters(codec="ascii"), max_size=300).map(Symbol),
    st.binary(min_size=4, max_size=4).map(Decimal32),
)
_VALUE = st.recursive(
    st.one_of(_HASHABLE, _FLOATS, st.floats()),
    lambda values: st.one_of(
        st.lists(values, max_size=8),
        st.dictionaries(_HASHABLE, values, max_size=8),
        st.builds(Described, st.integers(0, 2**64 - 1).map(ULong), values),
        st.lists(st.integers(0, 2**32 - 1).map(UInt), max_size=8).map(lambda v: Array(UInt, v)),
        st.lists(st.lists(values, max_size=3), max_size=3).map(lambda v: Array(list, v)),
    ),
    max_leaves=20,
)


@given(_VALUE)
def test_each_value_survives(value: Any) -> None:
    data = encode(value)
    found, position = decode(data)
    assert same(found, value)
    assert position == len(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    _check(data)


def _check(data: bytes) -> None:
    try:
        value, position = decode(data)
    except DecodeError:
        return
    assert position <= len(data)
    assert same(decode(encode(value))[0], value)


@given(st.binary(max_size=60), st.sampled_from([0xC0, 0xC1, 0xE0, 0xD0, 0xD1, 0xF0, 0x00]))
def test_any_bytes_behind_a_constructor(data: bytes, code: int) -> None:
    size = struct.pack(">I" if code & 0x10 else ">B", len(data))
    _check(bytes([code]) + size + data)
