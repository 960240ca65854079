"""What a twin can hold: names, values, depth and size."""

import math
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, DeviceModelMaxPropertiesExceeded
from emulator.hub.core.json import dumps, loads
from emulator.hub.twins.validation import check_part, check_size, size

PARTS = ("tags", "desired", "reported")


def nested(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = {"level": innermost}
    return innermost


def arrays(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = [innermost]
    return innermost


@pytest.mark.parametrize(
    "members",
    [
        {"k" * 1024: "v" * 4096},
        {"é" * 512: "é" * 2048},
        {"": True, "key/with-other_chars;:\u00a0\u2003\U0001f600": "\x00\x85 .$#"},
        {"i": -4503599627370496, "j": 4503599627370495, "k": 4503599627370496.0},
        loads('{"d": 1e20, "e": -1e300, "f": 123456789012345678901234567890.0}'),
        nested(11, 1),
        nested(11, None),
        nested(10, {}),
        {"a": arrays(10, 1)},
        nested(8, [{"in": 1}]),
    ],
)
def test_a_part_within_the_limits_is_accepted(members: Any) -> None:
    assert all(check_part(name, members) == members for name in PARTS)


BAD_KEYS = [".", "$", " ", "#", "\x00", "\x1f", "\x7f", "\x80", "\x9f", "\n"]


def bad_name(key: str) -> str:
    return (
        f"Property or Tag name has invalid characters. Error in Property/Tag {key}. "
        "Must not contain Control Characters, '.', '$', '#', or ' '."
    )


OVERSIZE = "Property or Tag value should be maximum 4096 bytes. Error in Property/Tag "
NULL = "Value of Property or Tag cannot be null. Error in Property/Tag "


@pytest.mark.parametrize(
    ("members", "text"),
    [
        *(({f"k{c}": 1}, bad_name(f"k{c}")) for c in BAD_KEYS),
        ({"a.b": None}, bad_name("a.b")),
        ({"ok": 1, "a": {"b": {"$version": None}}}, bad_name("$version")),
        ({"a": [{"b c": 1}]}, bad_name("b c")),
        ({"$other": 1}, bad_name("$other")),
        ({"k" * 1025: 1}, "property name kkkkkkkkkk.. exceeds maximum length of 1024"),
        ({"é" * 513: None}, "property name éééééééééé.. exceeds maximum length of 1024"),
        ({"a": {"b": "v" * 4097}}, OVERSIZE + "b"),
        ({"a": ["é" * 2049]}, OVERSIZE + "a"),
        ({"a": loads("0." + "1" * 4095)}, OVERSIZE + "a"),
        ({"a": [{"b": loads("1" * 4097)}]}, OVERSIZE + "b"),
        ({"a": loads(f"1e{'0' * 4096}1")}, OVERSIZE + "a"),
        ({"a": -4503599627370497}, "Property a has an out of bound value. Valid values are"),
        ({"a": [4503599627370496]}, "Property a has an out of bound value. Valid values are"),
        (loads('{"a": 123456789012345678901234567890}'), "Property a has an out of bound value."),
        (loads('{"a": -1e999}'), "Property a has an out of bound value. It is beyond a double"),
        ({"a": [1, None]}, "Arrays cannot contain 'null' as value. Error in Property/Tag a"),
        ({"a": [[None]]}, "Arrays cannot contain 'null' as value"),
        ({"a": [{"b": {"c": None}}]}, NULL + "c"),
        (nested(11, {}), "Nested depth of twin property exceeds 10. Error in Property/Tag level"),
        (nested(12, None), "Nested depth of twin property exceeds 10"),
        ({"a": arrays(11, 1)}, "Nested depth of twin property exceeds 10"),
        (nested(9, [[{}]]), "Nested depth of twin property exceeds 10"),
        ([], "Provided json is not a valid 'tags' or 'properties' object"),
        ("text", "Provided json is not a valid 'tags' or 'properties' object"),
        (1, "Provided json is not a valid 'tags' or 'properties' object"),
    ],
)
def test_a_part_with_an_invalid_member_is_refused(members: Any, text: str) -> None:
    for name in PARTS:
        with pytest.raises(ArgumentInvalid) as refusal:
            check_part(name, members)
        assert text in refusal.value.text
        assert refusal.value.code == 400004


def test_system_members_are_removed_from_desired_and_invalid_elsewhere() -> None:
    assert check_part("desired", {"a": 1, "$metadata": {}, "$version": "x"}) == {"a": 1}
    for name in ("tags", "reported"):
        for member in ("$metadata", "$version", "$other"):
            with pytest.raises(ArgumentInvalid) as refusal:
                check_part(name, {member: 1})
            assert refusal.value.text == bad_name(member)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    ("members", "place"),
    [({"floor": None}, "floor"), ({"a": {"b": {"c": None}}}, "c"), ({"a": [{"b": None}]}, "b")],
)
def test_a_null_is_refused_where_it_removes_nothing(name: str, members: Any, place: str) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        check_part(name, members, nulls=False)
    assert refusal.value.text == NULL + place


# --- sizes


TITLES = {"tags": "Tags", "desired": "Properties.Desired", "reported": "Properties.Reported"}
LIMITS = {"tags": 8192, "desired": 32768, "reported": 32768}


def with_text(name: str, character: str) -> Any:
    """A part whose documented size is small, and whose JSON text is over the bound of a section."""
    return {"a": [character] * (LIMITS[name] * limits.TWIN_TEXT_FACTOR // 3)}


@pytest.mark.parametrize("name", PARTS)
def test_what_the_documented_size_leaves_out_is_bounded_too(name: str) -> None:
    short = "0." + "1" * 22  # a double of .NET: 8 bytes, as any number
    part = {"a": [loads(short)] * (LIMITS[name] // 8 - 1)}
    check_size(name, check_part(name, part))
    long = {"a": [loads(f"0.{'1' * 98}")] * (LIMITS[name] // 100)}
    check_size(name, check_part(name, long))
    long["a"].append(long["a"][0])
    for values in (
        long,
        with_text(name, ""),
        with_text(name, "\x01"),
        {"a": [{}] * LIMITS[name] * 2},
    ):
        with pytest.raises(DeviceModelMaxPropertiesExceeded) as refusal:
            check_size(name, values)
        text = f"'{TITLES[name]}' size should be less than {LIMITS[name]} bytes."
        assert (refusal.value.text, refusal.value.code) == (text, 403100)


def test_a_patch_that_is_far_too_large_is_refused_before_it_is_checked() -> None:
    every = {f"k{number}": None for number in range(8192 // 3)}  # may remove all that fits
    assert check_part("tags", every) == every
    with pytest.raises(DeviceModelMaxPropertiesExceeded):
        check_part("tags", {**every, "a.b": [[]] * 40_000})


TEXTS = st.text("\x00\x1f\x7f\x80\x9f a~é\u2028\U0001f600", max_size=6)
VALUES = st.recursive(
    st.booleans() | st.sampled_from([0, 1.5, loads("1E+20")]) | TEXTS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(TEXTS, below, max_size=2),
    max_leaves=4,
)


def measured(value: Any) -> int:
    """IoT Hub docs: device twins; Cc are the control characters of Unicode."""
    if isinstance(value, str):
        return sum(len(c.encode()) for c in value if unicodedata.category(c) != "Cc")
    if isinstance(value, dict):
        return sum(measured(key) + measured(member) for key, member in value.items())
    if isinstance(value, list):
        return sum(map(measured, value))
    return 4 if value is True or value is False else 8


@settings(deadline=None)
@given(VALUES)
def test_a_size_is_the_documented_one(value: Any) -> None:
    assert size(value) == measured(value)


ODD_KEYS = st.sampled_from(["a", "b", "é" * 512, "", "~"]) | st.sampled_from(
    ["k" * 1025, "é" * 513, "a.b", "$a", "a b", "#", "\x7f", "\x80", "\u00a0"]
)
ODD_SCALARS = st.sampled_from(
    [None, True, "", "x" * 4096, "é" * 2048, 1.5, 2**52 - 1, -(2**52), loads("-0"), loads("1e99")]
) | st.sampled_from(
    ["x" * 4097, "é" * 2049, 2**52, -(2**52) - 1, loads("9" * 30), loads("1e999"), loads("-1e999")]
)
ODD_VALUES = st.recursive(
    ODD_SCALARS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(ODD_KEYS, below, max_size=2),
    max_leaves=3,
)


def wrapped(value: Any, wrappers: list[bool]) -> Any:
    for in_array in wrappers:
        value = [value] if in_array else {"w": value}
    return value


DEEP_VALUES = st.builds(
    wrapped, ODD_VALUES, st.lists(st.booleans(), max_size=11) | st.lists(st.just(False), min_size=8)
)


def allowed(document: Any) -> bool:
    """The documented rules, over a flat list of everything that is in the document."""
    everything = [(document, 0, False)]
    for value, depth, in_array in everything:
        if isinstance(value, dict):
            for key in value:
                if len(key.encode()) > 1024 or set(key) & set(".$ #"):
                    return False
                if "Cc" in map(unicodedata.category, key):
                    return False
            everything += [(below, depth + 1, in_array) for below in value.values()]
        elif isinstance(value, list):
            everything += [(below, depth + 1, True) for below in value]
    for value, depth, in_array in everything:
        if value is None and in_array:
            return False
        if isinstance(value, (dict, list)) and depth > 10:
            return False
        if isinstance(value, str) and len(value.encode()) > 4096:
            return False
        if isinstance(value, float) and math.isinf(value):
            return False
        written = dumps(value).decode()
        if re.fullmatch(r"-?\d+", written) and not -(2**52) <= int(written) < 2**52:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(ODD_KEYS, DEEP_VALUES, max_size=2))
def test_a_part_is_refused_exactly_when_it_breaks_a_rule(changes: dict[str, Any]) -> None:
    if allowed(changes):
        assert check_part("reported", changes) == changes
    else:
        with pytest.raises(ArgumentInvalid):
            check_part("reported", changes)
