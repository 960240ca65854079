import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.times import NEVER, iso, span, ticks

MOMENTS = st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NEVER, "0001-01-01T00:00:00Z"),
        (datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC), "2026-01-31T14:46:08Z"),
        (datetime(2026, 1, 31, 14, 46, 8, 123456, tzinfo=UTC), "2026-01-31T14:46:08.123456Z"),
        (datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC), "2026-01-31T14:46:08.12Z"),
        (datetime(2026, 1, 31, 14, 46, 8, 20, tzinfo=UTC), "2026-01-31T14:46:08.00002Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_moment_is_written_without_trailing_zeros(moment: datetime, text: str) -> None:
    assert iso(moment) == text


@given(MOMENTS)
def test_a_moment_can_be_parsed_again(moment: datetime) -> None:
    text = iso(moment)
    assert datetime.fromisoformat(text) == moment
    assert re.fullmatch(r"[^.]+(\.\d*[1-9])?Z", text)


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        (NEVER, 0),
        (datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 10),
        # The Unix epoch, as .NET has it: DateTime.UnixEpoch.Ticks.
        (datetime(1970, 1, 1, tzinfo=UTC), 621355968000000000),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), 3155378975999999990),
    ],
)
def test_ticks_are_those_of_dotnet(moment: datetime, count: int) -> None:
    assert ticks(moment) == count


@given(MOMENTS, st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365)))
def test_ticks_count_exactly(moment: datetime, later: timedelta) -> None:
    try:
        difference = ticks(moment + later) - ticks(moment)
    except OverflowError:  # beyond the year 9999
        return
    assert difference == later // timedelta(microseconds=1) * 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00"), (5, "00:00:05"), (29.999, "00:00:29"), (60, "00:01:00"), (300, "00:05:00")],
)
def test_a_span_is_written_as_dotnet_writes_it_in_whole_seconds(seconds: float, text: str) -> None:
    assert span(seconds) == text
