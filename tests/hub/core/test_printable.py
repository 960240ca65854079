"""Untrusted text in a line of a log."""

import pytest

from emulator.hub.core.printable import printable


@pytest.mark.parametrize("text", ["", "a device", "d%0a", "größer", "'quoted' \"twice\"", "\\n"])
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("a\n2026-01-01 ERROR", "a\r", "a\0", "\x1b[31mred", "\x9b2J", "a\tb", "\x7f"),
        *("a\u2028b", "a\u2029b", "a\x85b", "\u202egnirts", "\udcff", "\u200b"),
    ],
)
def test_other_text_is_quoted_as_one_line(text: str) -> None:
    quoted = printable(text)
    assert quoted.isprintable()
    assert quoted == repr(text)
    assert quoted.splitlines() == [quoted]


def test_an_error_is_its_text() -> None:
    assert printable(ValueError("a\nb")) == r"'a\nb'"
    assert printable(7) == "7"
