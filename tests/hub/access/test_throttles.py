import asyncio
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.access.operations import Operation, Throttle
from emulator.hub.access.throttles import Rate, ThrottleError, Throttles
from emulator.hub.core.errors import ThrottlingException
from tests.clock import ManualClock, settle

# IoT Hub docs: quotas and throttling; a hub of one unit. Direct methods are metered in KB a second.
DOCUMENTED = {
    Throttle.CONNECTIONS: {"S1": "100/s", "S2": "120/s", "S3": "6000/s"},
    Throttle.REGISTRY: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Throttle.D2C_SENDS: {"S1": "100/s", "S2": "120/s", "S3": "6000/s"},
    Throttle.C2D_SENDS: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Throttle.C2D_RECEIVES: {"S1": "1000/min", "S2": "1000/min", "S3": "50000/min"},
    Throttle.UPLOAD_STARTS: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Throttle.METHODS: {"S1": "160 KB/s", "S2": "480 KB/s", "S3": "24576 KB/s"},
    Throttle.QUERIES: {"S1": "20/min", "S2": "20/min", "S3": "1000/min"},
    Throttle.TWIN_READS: {"S1": "100/s", "S2": "100/s", "S3": "500/s"},
    Throttle.TWIN_UPDATES: {"S1": "50/s", "S2": "50/s", "S3": "250/s"},
    Throttle.JOBS: {"S1": "100/min", "S2": "100/min", "S3": "5000/min"},
    Throttle.JOB_DEVICES: {"S1": "10/s", "S2": "10/s", "S3": "50/s"},
    Throttle.CONFIGURATIONS: {"S1": "20/min", "S2": "20/min", "S3": "20/min"},
    # DPS docs: quotas and limits; the tier is that of the hub.
    Throttle.REGISTRATIONS: dict.fromkeys(("S1", "S2", "S3"), "1000/min"),
    Throttle.REGISTRATION_POLLS: dict.fromkeys(("S1", "S2", "S3"), "5/10 s"),
    Throttle.ENROLLMENTS: dict.fromkeys(("S1", "S2", "S3"), "1000/min"),
}
TIERS = ["S1", "S2", "S3"]
# One operation of each throttle.
OPERATIONS = {operation.throttle: operation for operation in Operation if operation.throttle}


def passes(throttles: Throttles, operation: Operation, size: int = 0) -> bool:
    try:
        throttles.charge(operation, size=size)
    except ThrottlingException:
        return False
    return True


def count_passes(throttles: Throttles, operation: Operation, size: int = 0) -> int:
    """Count the operations that pass before one is refused."""
    return next(n for n in range(100_000) if not passes(throttles, operation, size))


# --- tiers


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("throttle", Throttle)
def test_a_tier_allows_what_the_docs_say(throttle: Throttle, tier: str, clock: ManualClock) -> None:
    allowance, _, period = DOCUMENTED[throttle][tier].partition("/")
    number, _, unit = allowance.partition(" ")
    burst = int(number) // 4 if unit == "KB" else int(number)
    seconds = {"min": 60, "10 s": 10}.get(period, 1)
    throttles, operation = Throttles.parse([tier], clock=clock), OPERATIONS[throttle]
    assert count_passes(throttles, operation) == burst
    clock.advance(seconds)
    assert count_passes(throttles, operation) == burst
    clock.advance(seconds / 2)
    assert count_passes(throttles, operation) == burst // 2
    clock.advance(10)  # seconds, as the refusal says
    assert passes(throttles, operation)


def test_each_device_polls_with_an_allowance_of_its_own(clock: ManualClock) -> None:
    throttles = Throttles.parse(["S1"], clock=clock)
    poll = Operation.POLL_REGISTRATION
    for device in ("a", "b"):
        for _ in range(5):
            throttles.charge(poll, device=device)
        with pytest.raises(ThrottlingException):
            throttles.charge(poll, device=device)
    for number in range(10_000):  # so many are known: "a" begins anew
        throttles.charge(poll, device=str(number))
    throttles.charge(poll, device="a")


@pytest.mark.parametrize(
    ("settings", "slots"),
    [
        *((["S1"], 1), (["S2", "queries=5/s"], 5), (["s3"], 10)),
        *(([], 10), (["queries=1/min"], 10)),  # without a tier as many as a hub can have
    ],
)
def test_a_tier_has_so_many_job_slots(settings: list[str], slots: int) -> None:
    assert Throttles.parse(settings).job_slots == slots


def test_without_settings_nothing_is_throttled() -> None:
    throttles = Throttles()
    assert throttles.job_slots == 10
    for operation in Operation:
        assert all(passes(throttles, operation, size=10**6) for _ in range(1_000))


# --- refusals


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (Operation.READ_IDENTITY, "CRUD"),  # seen on a real hub
        (Operation.WRITE_CONFIGURATION, "ConfigurationWrite"),  # seen on a real hub
        (Operation.QUERY, "Query"),
    ],
)
def test_a_refusal_names_the_operation(operation: Operation, name: str, clock: ManualClock) -> None:
    throttles = Throttles.parse(["S1"], clock=clock)
    count_passes(throttles, operation)
    with pytest.raises(ThrottlingException) as refusal:
        throttles.charge(operation)
    assert refusal.value.text == (
        f"The request has been throttled. Wait 10 seconds and try again. Operation type: {name}"
    )


def test_operations_are_counted_together_by_their_throttle(clock: ManualClock) -> None:
    throttles = Throttles.parse(["configurations=4/min", "queries=1/min"], clock=clock)
    operations = [Operation.READ_CONFIGURATION, Operation.WRITE_CONFIGURATION]
    assert all(passes(throttles, operation) for operation in operations * 2)
    assert not any(passes(throttles, operation) for operation in operations)
    assert passes(throttles, Operation.QUERY)


# --- direct methods by their size


@pytest.mark.parametrize(
    ("size", "calls"),
    [(0, 40), (1, 40), (4096, 40), (4097, 20), (8192, 20), (156 * 1024, 1), (160 * 1024, 1)],
)
def test_a_direct_method_counts_for_each_4_kb(size: int, calls: int, clock: ManualClock) -> None:
    # The documentation's own example: 160 KB a second.
    throttles = Throttles.parse(["S1"], clock=clock)
    assert count_passes(throttles, Operation.INVOKE_METHOD, size) == calls


def test_only_direct_methods_are_counted_by_size(clock: ManualClock) -> None:
    throttles = Throttles.parse(["twin-updates=2/s"], clock=clock)
    assert count_passes(throttles, Operation.UPDATE_TWIN, 32 * 1024) == 2


def test_a_request_above_the_whole_allowance_passes_alone(clock: ManualClock) -> None:
    # Else it never passes, however long its caller waits.
    throttles = Throttles.parse(["methods=2/s"], clock=clock)
    assert passes(throttles, Operation.INVOKE_METHOD, 128 * 1024)
    assert not passes(throttles, Operation.INVOKE_METHOD)
    clock.advance(1)
    assert passes(throttles, Operation.INVOKE_METHOD)
    assert not passes(throttles, Operation.INVOKE_METHOD, 128 * 1024)


# --- time


def test_a_refused_operation_is_not_counted(clock: ManualClock) -> None:
    throttles = Throttles.parse(["queries=20/min"], clock=clock)
    count_passes(throttles, Operation.QUERY)
    for _ in range(29):
        clock.advance(0.1)
        assert not passes(throttles, Operation.QUERY)
    clock.advance(0.1)
    assert count_passes(throttles, Operation.QUERY) == 1


def test_a_clock_that_is_set_back_changes_no_allowance(clock: ManualClock) -> None:
    throttles = Throttles.parse(["queries=20/min"], clock=clock)
    count_passes(throttles, Operation.QUERY)
    clock.change_time(-3600)
    assert not passes(throttles, Operation.QUERY)
    clock.advance(3)
    assert count_passes(throttles, Operation.QUERY) == 1


@given(
    count=st.integers(1, 50),
    seconds=st.sampled_from([1, 60]),
    waits=st.lists(st.integers(0, 10_000_000), max_size=60),
)
def test_no_more_passes_than_the_allowance_and_its_rate(
    count: int, seconds: int, waits: list[int]
) -> None:
    clock = ManualClock()
    throttles = Throttles({"queries": Rate(count, seconds)}, clock=clock)
    allowance = Fraction(count)
    for microseconds in waits:
        clock.advance(microseconds / 10**6)
        allowance += Fraction(count * microseconds, seconds * 10**6)
        allowance = min(allowance, Fraction(count))
        assert passes(throttles, Operation.QUERY) == (allowance >= 1)
        if allowance >= 1:
            allowance -= 1


# --- operations that wait


async def test_callers_that_wait_have_their_turn_in_their_order(clock: ManualClock) -> None:
    throttles = Throttles.parse(["d2c-sends=2/s"], clock=clock)
    done: list[int] = []

    async def send(number: int) -> None:
        await throttles.wait(Operation.SEND_EVENT)
        throttles.charge(Operation.SEND_EVENT)
        done.append(number)

    tasks = [asyncio.ensure_future(send(number)) for number in range(7)]
    await settle()
    assert done == [0, 1]
    tasks[3].cancel()
    for count in range(3, 7):
        assert not passes(throttles, Operation.SEND_EVENT)  # a request does not pass the queue
        await clock.pass_time(0.5)
        assert done == [0, 1, 2, 4, 5, 6][:count]
    await clock.pass_time(0.5)
    assert passes(throttles, Operation.SEND_EVENT)


async def test_without_a_limit_nothing_waits(clock: ManualClock) -> None:
    throttles = Throttles.parse(["queries=1/s"], clock=clock)
    assert not throttles.limits(Operation.SEND_EVENT)
    assert not throttles.limits(Operation.SUBSCRIBE)
    for _ in range(100):
        await throttles.wait(Operation.SEND_EVENT)
        throttles.charge(Operation.SEND_EVENT)


# --- settings


@pytest.mark.parametrize(
    ("settings", "allowances"),
    [
        (["S1", "queries=3/s"], {Operation.QUERY: 3, Operation.UPDATE_TWIN: 50}),
        (["queries=3/s", "S1"], {Operation.QUERY: 3, Operation.UPDATE_TWIN: 50}),
        (["queries=1/min", "twin-reads=2/s"], {Operation.QUERY: 1, Operation.READ_TWIN: 2}),
        (["S2", "s2", "jobs=7/s", "jobs=7/s"], {Operation.USE_JOB: 7}),
    ],
)
def test_rates_replace_those_of_the_tier(
    settings: list[str], allowances: dict[Operation, int], clock: ManualClock
) -> None:
    throttles = Throttles.parse(settings, clock=clock)
    assert {each: count_passes(throttles, each) for each in allowances} == allowances


def test_a_rate_throttles_no_other_operation() -> None:
    throttles = Throttles.parse(["queries=1/min"])
    assert all(passes(throttles, Operation.READ_IDENTITY) for _ in range(1_000))


NOT_RATES = ["", "20", "1.5/s", "20/hour", "20/min ", "٣/s"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        *((settings, "S1, S2, S3") for settings in (["S4"], [""])),
        (["off"], "queries=20/min"),
        *(
            (settings, "for connections, registry, d2c-sends")
            for settings in (["query=1/s"], ["=1/s"])
        ),
        *(([f"queries={rate}"], "20/min") for rate in NOT_RATES),
        *(([f"queries={rate}"], "from 1 up") for rate in ("0/s", "-1/s")),
        (["S1", "S2"], "'S2' contradicts"),
        (["queries=1/s", "S1", "queries=2/s"], "'queries=2/s' contradicts"),
    ],
)
def test_an_invalid_setting_is_refused_in_one_line_that_says_what_is_valid(
    settings: list[str], text: str
) -> None:
    with pytest.raises(ThrottleError) as refusal:
        Throttles.parse(settings)
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)
