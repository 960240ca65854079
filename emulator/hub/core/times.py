"""The formats of times and time spans on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

# ISO 8601, without years and months, whose length depends on the date.
_DURATION = re.compile(
    r"P(?=[0-9T])(?:{0}W)?(?:{0}D)?(?:T(?=[0-9])(?:{0}H)?(?:{0}M)?(?:{0}S)?)?".format(
        r"([0-9]{1,9}(?:[.,][0-9]{1,9})?)"
    )
)

# .NET's DateTime.MinValue: the hub writes it where an event never happened (seen on a real hub).
NEVER = datetime.min.replace(tzinfo=UTC)

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


def iso(time: datetime) -> str:
    """Return `2026-01-31T14:46:08.1234567Z`: UTC, without trailing zeros of the fraction."""
    # isoformat takes four times as long, and strftime writes the year 1 as 1.
    text = msgspec.json.encode(time).decode().strip('"Z')
    return f"{text.rstrip('0')}Z" if time.microsecond else f"{text}Z"


def ticks(time: datetime) -> int:
    """Return .NET's count of 100 ns since the year 1, 18 digits: the form of generation ids."""
    return (time - NEVER) // timedelta(microseconds=1) * 10


def milliseconds(time: datetime) -> int:
    """Return the milliseconds since 1970."""
    return (time - _EPOCH) // _MILLISECOND


def from_milliseconds(count: int) -> datetime:
    """Return the time so many milliseconds after 1970 began.

    Raises:
        OverflowError: it is out of range.
    """
    return _EPOCH + timedelta(milliseconds=count)


def span(seconds: float) -> str:
    """Return `00:00:30`, as .NET writes a TimeSpan."""
    return str(timedelta(seconds=int(seconds))).rjust(8, "0")


def parse_duration(text: str) -> timedelta | None:
    """Parse `P2DT3H4M5.6S`, an ISO 8601 duration.

    Returns:
        None if it is invalid, too long for a `timedelta`, or has years or months.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    units = "weeks", "days", "hours", "minutes", "seconds"
    parts = zip(units, match.groups(), strict=True)
    try:
        return timedelta(**{unit: float(part.replace(",", ".")) for unit, part in parts if part})
    except OverflowError:
        return None
