import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emulator.hub.core.json import dumps, loads

# --- JSON texts, made by the grammar of RFC 8259

SPACES = st.text(" \t\r\n", max_size=2)
NUMBERS = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
STRINGS = st.builds(json.dumps, st.text(), ensure_ascii=st.booleans())
SCALARS = st.one_of(st.sampled_from(["null", "true", "false"]), NUMBERS, STRINGS)


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaced = st.tuples(SPACES, values, SPACES).map("".join)
    arrays = st.lists(spaced, max_size=5).map(lambda items: f"[{','.join(items)}]")
    members = st.tuples(SPACES, STRINGS, SPACES, st.just(":"), spaced).map("".join)
    objects = st.lists(members, max_size=5).map(lambda items: f"{{{','.join(items)}}}")
    return arrays | objects


TEXTS = st.tuples(SPACES, st.recursive(SCALARS, containers, max_leaves=20), SPACES).map("".join)


def exact(text: str | bytes) -> Any:
    """Parse with each number as it is written."""

    def number(written: str) -> tuple[str, str]:
        return ("number", written)

    return json.loads(text, parse_int=number, parse_float=number)


@given(TEXTS)
@example("[1e-07, 1e+16, 1E5, 1.0, -0, -0.0, 1e999]")
@example("[1234567890123456789, 18446744073709551616, -9223372036854775809]")
def test_a_text_keeps_its_meaning_and_the_spelling_of_its_numbers(text: str) -> None:
    written = dumps(loads(text.encode()))
    assert exact(written) == exact(text)
    # And order: comparing objects doesn't see it.
    assert json.dumps(exact(written)) == json.dumps(exact(text))


def valued(value: Any) -> Any:
    """Take each number as a double, as most readers do."""
    if isinstance(value, dict):
        return {name: valued(member) for name, member in value.items()}
    if isinstance(value, list):
        return [valued(element) for element in value]
    return float(value) if isinstance(value, (int, float)) else value


@given(TEXTS)
def test_a_number_has_the_value_that_its_text_says(text: str) -> None:
    assert valued(loads(text.encode())) == valued(json.loads(text))


@given(TEXTS)
def test_the_written_text_is_compact_and_stays_the_same(text: str) -> None:
    written = dumps(loads(text))
    assert dumps(loads(written)) == written
    without_strings = re.sub(rb'"([^"\\]|\\.)*"', b"", written)
    assert not re.search(rb"\s", without_strings)


# --- invalid JSON

PIECES = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\u", b"\\", b"d800", b"a"),
        *(b"-", b"0", b"1e", b".5", b"null", b"NaN", b"Infinity"),
        *(b" ", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    ]
)


@given(st.one_of(st.binary(), st.lists(PIECES, max_size=12).map(b"".join)))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 100_000)
@example(b"-" + b"1" * 5_000 + b".5e" + b"9" * 5_000)
def test_bytes_are_json_or_a_value_error(data: bytes) -> None:
    try:
        value = loads(data)
    except ValueError:
        return
    # What was read can be written, whatever it was.
    assert exact(dumps(value)) == exact(data.decode("utf-8-sig"))


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"NaN", b"[Infinity]", b"-Infinity", b"True", b"01", b"+1", b".5", b"1."),
        *(b"0x10", b"'a'", b"{a:1}", b"[1,]", b'{"a":1,}', b"{} {}", b'"\t"', b'"\\x41"'),
        *(b'"\xff"', '"a"'.encode("utf-16"), "[\u0661]"),  # the last one is an Arabic digit
        # Half of a surrogate pair, as a character and escaped
        *(b'"\xed\xa0\x80"', '"\ud800"', b'"\\ud800"', b'{"\\udc00": 1}', b'["\\ud800\\ud800"]'),
    ],
)
def test_invalid_json_is_refused(text: bytes | str) -> None:
    with pytest.raises(ValueError):
        loads(text)


@pytest.mark.parametrize("element", [b"1", b"1e5", b"{}", b"[[[]]]", b'{"":1}', b'""'])
def test_a_text_with_very_many_values_is_refused(element: bytes) -> None:
    def array(values: int) -> bytes:
        return b"[" + b",".join([element] * values) + b"]"

    assert len(loads(array(60_000))) == 60_000
    with pytest.raises(ValueError, match="more than 250000 values"):
        loads(array(250_001))


def test_a_byte_order_mark_is_skipped() -> None:
    assert loads(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_value_that_was_parsed_can_be_a_part_of_another_and_written(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    for depth in range(1, 1_000):
        try:
            value = loads(opening * depth + b"1.50" + closing * depth)
        except ValueError:
            break
        dumps({"properties": {"desired": {"a": value}}})
    # More than the ten levels of a twin's section; and there is an end.
    assert 100 < depth < 999


def test_a_value_outside_json_is_not_written() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})
