"""What a lenient reader takes for JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.lenient_json import accepts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_json_is_accepted_and_a_part_of_it_is_not(value: object, ascii_: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_).encode("utf-8", "replace")
    assert accepts(text)
    if text[-1:] in b"]}":
        assert not accepts(text[:-1])
        assert not accepts(text + text[-1:])


@pytest.mark.parametrize(
    "text",
    [
        *("'a'", "{'a':1}", "{a:1}", "{$a_1:{b:[1,{c:2}]}}", "{1:1}", r"'it\'s'", "'\"'", '"\'"'),
        *("{a:'b',}", "[1,]", "/*x*/1", "//c\n[1]//e", "'//'", '"/*"', "  7 ", '"a\nb"'),
        *("NaN", "-Infinity", "undefined", ".5", "1.", "-.5e+1", "007", "0x1F", "1e400"),
        *(r'"\ud800"', "1" * 5_000, "[" * 60_000 + "]" * 60_000),
    ],
)
def test_more_than_json_is_accepted(text: str) -> None:
    assert accepts(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "fine <thanks", "fine", "<xml/>", "True", "tru", "new Date(0)", "'a", r"'\x'"),
        *("{", "}", "[", "]", "[}", "{]", "[1", "[1]]", "{a:1}}", ":", ",", "1,", "/*", "/"),
        *("{a}", "{a:}", "{:1}", "{a 1}", "{,}", "{a::1}", "a:1", "[1 2]", "{a:1 b:2}", "1 2"),
        *("08", "+5", "-", "--1", "1e", "0x", "1.2.3", "[" * 100_000),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert not accepts(text.encode())


@pytest.mark.parametrize("data", [b"\xff", b'"caf\xe9"', '"a"'.encode("utf-16")])
def test_bytes_that_are_not_utf_8_are_refused(data: bytes) -> None:
    assert not accepts(data)
