"""How the hub writes a moment and a span."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

# .NET's DateTime.MinValue: what the hub writes for a time that never was (seen on a real hub).
NEVER = datetime.min.replace(tzinfo=UTC)


def iso(moment: datetime) -> str:
    """`2026-01-31T14:46:08.1234567Z`: UTC, trailing zeros of the fraction trimmed."""
    # Not isoformat, which takes four times as long, nor strftime, which writes the year 1 as 1.
    text = msgspec.json.encode(moment).decode().strip('"Z')
    return f"{text.rstrip('0')}Z" if moment.microsecond else f"{text}Z"


def ticks(moment: datetime) -> int:
    """.NET's count of 100 ns since the year 1, 18 digits now: generation ids are made of it."""
    return (moment - NEVER) // timedelta(microseconds=1) * 10


def span(seconds: float) -> str:
    """`00:00:30`, as .NET writes a TimeSpan."""
    return str(timedelta(seconds=int(seconds))).rjust(8, "0")
