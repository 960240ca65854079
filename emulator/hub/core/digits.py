"""Whole numbers that clients write as text: in URLs, headers and topics."""

from __future__ import annotations

# More digits than any number that the hub counts to. Python refuses to read some thousands.
_DIGITS = 18


def whole_number(text: str) -> int | None:
    """Parse a number from 0 up, cut to 18 digits; None if the text is not such a number."""
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text.lstrip("0")[:_DIGITS] or "0")
