"""Whole numbers that clients write as text."""

import pytest

from emulator.hub.core.digits import whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("0", 0), ("7", 7), ("0" * 30 + "12", 12), ("0" * 5_000, 0)),
        *(("123456789012345678", 123456789012345678), ("9" * 5_000, 10**18 - 1)),
        *((each, None) for each in ("", "-1", "+1", " 1", "1.0", "x", "٣", "1_0")),
    ],
)
def test_a_whole_number_is_parsed_whatever_its_length(text: str, number: int | None) -> None:
    assert whole_number(text) == number
