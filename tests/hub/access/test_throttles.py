from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.access.throttles import Operation, Rate, ThrottleError, Throttles
from emulator.hub.core.errors import ThrottlingException

START = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)

# IoT Hub docs: quotas and throttling; a hub of one unit. Direct methods are metered in KB a second.
DOCUMENTED = {
    Operation.REGISTRY: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Operation.SEND_EVENT: {"S1": "100/s", "S2": "120/s", "S3": "6000/s"},
    Operation.SEND_COMMAND: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Operation.RECEIVE_COMMAND: {"S1": "1000/min", "S2": "1000/min", "S3": "50000/min"},
    Operation.INVOKE_METHOD: {"S1": "160 KB/s", "S2": "480 KB/s", "S3": "24576 KB/s"},
    Operation.QUERY: {"S1": "20/min", "S2": "20/min", "S3": "1000/min"},
    Operation.READ_TWIN: {"S1": "100/s", "S2": "100/s", "S3": "500/s"},
    Operation.UPDATE_TWIN: {"S1": "50/s", "S2": "50/s", "S3": "250/s"},
    Operation.JOB: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Operation.READ_CONFIGURATION: {"S1": "20/min", "S2": "20/min", "S3": "20/min"},
    Operation.WRITE_CONFIGURATION: {"S1": "20/min", "S2": "20/min", "S3": "20/min"},
}
TIERS = ["S1", "S2", "S3"]


class Clock:
    """A clock that stands, unless it is told to go on."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def passes(throttles: Throttles, operation: Operation, size: int = 0) -> bool:
    try:
        throttles.charge(operation, size=size)
    except ThrottlingException:
        return False
    return True


def count_passes(throttles: Throttles, operation: Operation, size: int = 0) -> int:
    """Ask until it is refused; gives how often it wasn't."""
    count = 0
    while passes(throttles, operation, size):
        count += 1
        assert count < 100_000, "it is never refused"
    return count


# --- tiers


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.value)
def test_a_tier_allows_what_the_docs_say(operation: Operation, tier: str) -> None:
    allowance, _, period = DOCUMENTED[operation][tier].partition("/")
    number, _, unit = allowance.partition(" ")
    burst = int(number) // 4 if unit == "KB" else int(number)
    seconds = 60 if period == "min" else 1
    clock = Clock()
    throttles = Throttles.parse([tier], clock=clock)

    assert count_passes(throttles, operation) == burst
    clock.go_on(seconds)
    assert count_passes(throttles, operation) == burst
    clock.go_on(seconds / 2)
    assert count_passes(throttles, operation) == burst // 2


@pytest.mark.parametrize(("tier", "slots"), [("S1", 1), ("S2", 5), ("S3", 10)])
def test_a_tier_has_so_many_job_slots(tier: str, slots: int) -> None:
    assert Throttles.parse([tier]).job_slots == slots
    assert Throttles.parse([tier.lower(), "queries=5/s"]).job_slots == slots


@pytest.mark.parametrize("settings", [[], ["queries=1/min"]])
def test_without_a_tier_there_are_the_most_job_slots(settings: list[str]) -> None:
    assert Throttles.parse(settings).job_slots == Throttles().job_slots == 10


def test_nothing_is_throttled_unless_it_is_asked_for() -> None:
    throttles = Throttles()
    for operation in Operation:
        for _ in range(10_000):
            throttles.charge(operation, size=10**6)


# --- refusals


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        # Both seen on a real hub.
        (Operation.REGISTRY, "CRUD"),
        (Operation.WRITE_CONFIGURATION, "ConfigurationWrite"),
        (Operation.QUERY, "Query"),
    ],
)
def test_a_refusal_names_the_operation(operation: Operation, name: str) -> None:
    throttles = Throttles.parse(["S1"], clock=Clock())
    count_passes(throttles, operation)
    with pytest.raises(ThrottlingException) as refusal:
        throttles.charge(operation)
    assert refusal.value.text == (
        f"The request has been throttled. Wait 10 seconds and try again. Operation type: {name}"
    )
    assert refusal.value.code == 429001


def test_a_throttle_is_no_other_operations() -> None:
    throttles = Throttles.parse(["S1"], clock=Clock())
    count_passes(throttles, Operation.QUERY)
    assert passes(throttles, Operation.READ_TWIN)
    assert passes(throttles, Operation.REGISTRY)


def test_reading_and_writing_configurations_have_one_throttle() -> None:
    throttles = Throttles.parse(["configurations=4/min"], clock=Clock())
    operations = [Operation.READ_CONFIGURATION, Operation.WRITE_CONFIGURATION] * 2
    assert all(passes(throttles, operation) for operation in operations)
    assert not passes(throttles, Operation.READ_CONFIGURATION)
    assert not passes(throttles, Operation.WRITE_CONFIGURATION)


# --- direct methods by their size


@pytest.mark.parametrize(
    ("size", "calls"),
    [(0, 40), (1, 40), (4096, 40), (4097, 20), (8192, 20), (156 * 1024, 1), (160 * 1024, 1)],
)
def test_a_direct_method_counts_once_for_each_4_kb(size: int, calls: int) -> None:
    # The documentation's own example: 160 KB a second.
    throttles = Throttles.parse(["S1"], clock=Clock())
    assert count_passes(throttles, Operation.INVOKE_METHOD, size) == calls


def test_a_size_counts_for_direct_methods_alone() -> None:
    throttles = Throttles.parse(["twin-updates=2/s"], clock=Clock())
    assert count_passes(throttles, Operation.UPDATE_TWIN, 32 * 1024) == 2


def test_what_is_larger_than_the_whole_allowance_passes_alone() -> None:
    # Else it never would, however long its caller waits.
    clock = Clock()
    throttles = Throttles.parse(["methods=2/s"], clock=clock)
    assert passes(throttles, Operation.INVOKE_METHOD, 128 * 1024)
    assert not passes(throttles, Operation.INVOKE_METHOD)
    clock.go_on(1)
    assert passes(throttles, Operation.INVOKE_METHOD)
    assert not passes(throttles, Operation.INVOKE_METHOD, 128 * 1024)


# --- time


def test_what_is_refused_does_not_count() -> None:
    clock = Clock()
    throttles = Throttles.parse(["queries=20/min"], clock=clock)
    count_passes(throttles, Operation.QUERY)
    for _ in range(29):
        clock.go_on(0.1)
        assert not passes(throttles, Operation.QUERY)
    clock.go_on(0.1)
    assert passes(throttles, Operation.QUERY)
    assert not passes(throttles, Operation.QUERY)


def test_ten_seconds_are_enough_to_wait() -> None:
    # As the refusal says; on every tier.
    for tier in TIERS:
        for operation in Operation:
            clock = Clock()
            throttles = Throttles.parse([tier], clock=clock)
            count_passes(throttles, operation)
            clock.go_on(10)
            assert passes(throttles, operation), (tier, operation)


def test_a_clock_that_is_set_back_neither_gives_nor_blocks() -> None:
    clock = Clock()
    throttles = Throttles.parse(["queries=20/min"], clock=clock)
    count_passes(throttles, Operation.QUERY)
    clock.go_on(-3600)
    assert not passes(throttles, Operation.QUERY)
    clock.go_on(3)
    assert count_passes(throttles, Operation.QUERY) == 1


@given(
    count=st.integers(1, 50),
    seconds=st.sampled_from([1, 60]),
    waits=st.lists(st.integers(0, 10_000_000), max_size=60),
)
def test_what_passes_is_never_more_than_the_allowance_and_what_came_back(
    count: int, seconds: int, waits: list[int]
) -> None:
    clock = Clock()
    throttles = Throttles({"queries": Rate(count, seconds)}, clock=clock)
    allowance = Fraction(count)
    for microseconds in waits:
        clock.now += timedelta(microseconds=microseconds)
        allowance = min(
            allowance + Fraction(count * microseconds, seconds * 10**6), Fraction(count)
        )
        assert passes(throttles, Operation.QUERY) == (allowance >= 1)
        if allowance >= 1:
            allowance -= 1


# --- settings


def test_a_rate_stands_above_the_tiers_wherever_it_is_given() -> None:
    for settings in (["S1", "queries=3/s"], ["queries=3/s", "S1"]):
        throttles = Throttles.parse(settings, clock=Clock())
        assert count_passes(throttles, Operation.QUERY) == 3
        assert count_passes(throttles, Operation.UPDATE_TWIN) == 50


def test_a_rate_alone_leaves_the_rest_free() -> None:
    throttles = Throttles.parse(["queries=1/min", "twin-reads=2/s"], clock=Clock())
    assert count_passes(throttles, Operation.QUERY) == 1
    assert count_passes(throttles, Operation.READ_TWIN) == 2
    for _ in range(1000):
        throttles.charge(Operation.REGISTRY)


def test_the_same_setting_twice_is_one() -> None:
    throttles = Throttles.parse(["S2", "s2", "jobs=7/s", "jobs=7/s"], clock=Clock())
    assert count_passes(throttles, Operation.JOB) == 7


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["S4"], "S1, S2, S3"),
        ([""], "S1, S2, S3"),
        (["off"], "queries=20/min"),
        (["query=1/s"], "queries"),
        (["=1/s"], "queries"),
        (["queries="], "20/min"),
        (["queries=20"], "20/min"),
        (["queries=0/s"], "from 1 up"),
        (["queries=-1/s"], "from 1 up"),
        (["queries=1.5/s"], "20/min"),
        (["queries=20/hour"], "20/min"),
        (["queries=20/min "], "20/min"),
        (["queries=٣/s"], "20/min"),
        (["S1", "S2"], "'S2' contradicts"),
        (["queries=1/s", "S1", "queries=2/s"], "'queries=2/s' contradicts"),
    ],
)
def test_what_is_no_throttle_is_told_in_one_line_that_says_what_is(
    settings: list[str], text: str
) -> None:
    with pytest.raises(ThrottleError) as refusal:
        Throttles.parse(settings)
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)
