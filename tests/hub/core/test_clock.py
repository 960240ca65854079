"""The clock of a hub: on the machine's time, and over a machine whose time a test moves."""

import asyncio
import gc
import itertools
import math
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.clock import MAX_AHEAD, Clock
from emulator.hub.core.signals import Signal
from emulator.hub.core.timers import Timers
from tests.clock import START, ManualClock, eventually, settle

HOUR = 3600.0


def over_manual() -> tuple[Clock, ManualClock]:
    """Make a clock over a machine that a test moves."""
    machine = ManualClock()
    return Clock(machine), machine


async def test_a_clock_runs_on_the_time_of_the_machine() -> None:
    clock, calls = Clock(), asyncio.Queue[int]()
    start = clock.monotonic()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=10)
    clock.call_later(0.001, calls.put_nowait, 1).cancel()
    clock.call_later(0.03, calls.put_nowait, 3)
    clock.call_later(0.01, calls.put_nowait, 2)
    await asyncio.wait_for(clock.sleep(0.005), 10)
    assert clock.monotonic() >= start + 0.003
    assert [await asyncio.wait_for(calls.get(), 10) for _ in range(2)] == [2, 3]


async def test_a_timer_waits_for_the_machine_and_for_nothing_else() -> None:
    clock, machine = over_manual()
    calls: list[datetime] = []
    for seconds in (30, 10, 20):
        clock.call_later(seconds, lambda: calls.append(clock.now()))
    machine.advance(9.9)
    assert not calls
    machine.advance(100_000)
    assert len(calls) == 3
    assert clock.now() == START + timedelta(seconds=100_009.9)


async def test_a_timer_far_ahead_is_called_at_its_time() -> None:
    clock, machine = over_manual()
    calls: list[datetime] = []
    clock.call_later(40 * 24 * HOUR, lambda: calls.append(clock.now()))
    machine.advance(40 * 24 * HOUR - 1)
    assert not calls
    machine.advance(1)
    assert calls == [START + timedelta(days=40)]


async def test_a_timer_that_fails_holds_up_no_other() -> None:
    clock, machine = over_manual()
    calls: list[int] = []
    clock.call_later(1, lambda: 1 // 0)
    clock.call_later(1, calls.append, 2)
    with pytest.raises(ZeroDivisionError):  # the event loop reports it
        machine.advance(1)
    machine.advance(0)
    assert calls == [2]


async def test_an_advance_calls_what_is_due_in_order_and_at_its_time() -> None:
    clock, machine = over_manual()
    calls: list[tuple[str, datetime, float]] = []

    def note(name: str) -> None:
        calls.append((name, clock.now(), clock.monotonic()))

    for seconds, name in ((90, "later"), (60, "b"), (30, "a"), (60, "c")):
        clock.call_later(seconds, note, name)
    clock.call_later(45, note, "cancelled").cancel()
    await clock.pass_time(60)
    times = [("a", 30), ("b", 60), ("c", 60)]
    assert calls == [(name, START + timedelta(seconds=time), time) for name, time in times]
    assert (clock.ahead, clock.now()) == (60, START + timedelta(minutes=1))
    machine.advance(29)
    assert len(calls) == 3
    machine.advance(1)
    assert calls[3][0] == "later"
    assert machine.now() == START + timedelta(seconds=30)


async def test_an_advance_calls_the_timers_that_begin_within_it() -> None:
    clock, _ = over_manual()
    times: list[float] = []

    def again() -> None:
        times.append(clock.monotonic())
        clock.call_later(10, again)

    clock.call_later(10, again)
    await clock.pass_time(35)
    assert times == [10, 20, 30]
    await clock.pass_time(5)
    assert times == [10, 20, 30, 40]


async def test_tasks_run_at_the_time_of_the_timer_that_wakes_them() -> None:
    clock, _ = over_manual()
    notes: list[tuple[str, float]] = []

    async def sleeper(name: str, *spans: float) -> None:
        for span in spans:
            await clock.sleep(span)
            notes.append((name, clock.monotonic()))

    async def waiter() -> None:
        signal = Signal(clock)
        clock.call_later(25, signal.send)
        await signal.wait_for(lambda: clock.monotonic() >= 25, 100)
        notes.append(("signalled", clock.monotonic()))
        await signal.wait_for(lambda: False, 5)
        notes.append(("timed out", clock.monotonic()))

    async def behind(tasks: int) -> None:
        """Sleep, behind as many tasks."""
        if tasks:
            await asyncio.gather(asyncio.create_task(behind(tasks - 1)))
        else:
            await clock.sleep(12)

    async def chain() -> None:
        for _ in range(3):
            await behind(5)
            notes.append(("chain", clock.monotonic()))

    tasks = [
        asyncio.create_task(each)
        for each in (sleeper("a", 10, 10, 10), sleeper("b", 15, 20), waiter(), chain())
    ]
    await clock.pass_time(40)
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert notes == [
        *(("a", 10), ("chain", 12), ("b", 15), ("a", 20), ("chain", 24), ("signalled", 25)),
        *(("a", 30), ("timed out", 30), ("b", 35), ("chain", 36)),
    ]


async def test_advances_from_several_tasks_follow_each_other() -> None:
    clock, _ = over_manual()
    times: list[float] = []
    for seconds in (30, 60, 90, 150):
        clock.call_later(seconds, lambda: times.append(clock.monotonic()))
    await asyncio.wait_for(asyncio.gather(*(clock.pass_time(60) for _ in range(2))), 10)
    assert times == [30, 60, 90]
    assert clock.ahead == 120


async def test_an_advance_that_is_cancelled_ends_where_it_is() -> None:
    clock, machine = over_manual()
    calls: list[int] = []
    clock.call_later(50, lambda: task.cancel())
    clock.call_later(60, calls.append, 60)
    task = asyncio.create_task(clock.pass_time(100))
    await asyncio.wait((task,), timeout=10)
    assert task.cancelled()
    assert (clock.ahead, clock.now(), calls) == (50, START + timedelta(seconds=50), [])
    machine.advance(10)
    assert calls == [60]


async def test_an_advance_survives_a_timer_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    clock, _ = over_manual()
    calls: list[int] = []
    clock.call_later(1, lambda: 1 // 0)
    clock.call_later(2, calls.append, 2)
    await clock.pass_time(5)
    assert (calls, clock.ahead) == ([2], 5)
    assert "A timer failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("seconds", [0, -1, -math.inf, math.nan])
async def test_an_advance_that_does_not_go_forward_is_refused(seconds: float) -> None:
    clock, _ = over_manual()
    with pytest.raises(ValueError, match=r"^Invalid advance: \S+ s. Use more than 0 s$"):
        await clock.pass_time(seconds)
    assert clock.now() == START


async def test_a_clock_is_at_most_ten_years_ahead() -> None:
    clock, _ = over_manual()
    most = MAX_AHEAD.total_seconds()
    with pytest.raises(ValueError, match=r"^Invalid advance: inf s. The clock is 0 s ahead"):
        await clock.pass_time(math.inf)
    await asyncio.wait_for(clock.pass_time(most - 5), 10)
    with pytest.raises(ValueError, match=r"s ahead of the machine; 315360000 s \(3650 days\) are"):
        await clock.pass_time(6)
    await clock.pass_time(5)
    assert clock.now() == START + MAX_AHEAD


async def test_a_clock_that_was_advanced_never_runs_backwards() -> None:
    clock, stamps = Clock(), []

    async def look() -> None:
        while True:
            stamps.append((clock.now(), clock.monotonic()))
            await asyncio.sleep(0)

    task = asyncio.create_task(look())
    for _ in range(50):
        clock.call_later(0.3, lambda: stamps.append((clock.now(), clock.monotonic())))
        await clock.pass_time(0.7)
        stamps.append((clock.now(), clock.monotonic()))
    task.cancel()
    assert stamps == sorted(stamps)
    assert all(one[1] <= two[1] for one, two in itertools.pairwise(stamps))
    assert clock.ahead == pytest.approx(35)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("timer"), st.integers(0, 50)),
            st.tuples(st.just("cancel"), st.integers(0, 20)),
            st.tuples(st.just("machine"), st.integers(0, 30)),
            st.tuples(st.just("advance"), st.integers(1, 30)),
        )
    )
)
def test_a_timer_is_called_once_after_its_time_whoever_moves_it(
    steps: list[tuple[str, int]],
) -> None:
    async def play() -> None:
        clock, machine = over_manual()
        due: dict[int, float] = {}
        called: dict[int, float] = {}
        timers = []
        now = 0.0
        for step, number in steps:
            if step == "timer":
                due[len(timers)] = now + number
                timers.append(
                    clock.call_later(
                        number, lambda n: called.setdefault(n, clock.monotonic()), len(timers)
                    )
                )
            elif step == "cancel" and number < len(timers):
                timers[number].cancel()
                if number not in called:
                    due.pop(number, None)
            elif step == "machine":
                machine.advance(number)
                now += number
            elif step == "advance":
                await clock.pass_time(number)
                now += number
            assert clock.monotonic() == now
            late = [each for each, time in due.items() if time < now and each not in called]
            assert not late
            assert not [each for each, time in called.items() if time < due[each]]
        machine.advance(60)
        assert called.keys() == due.keys()

    asyncio.run(play())


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    lasting = [timers.add(1000 - each, print, ()) for each in range(100)]
    for each in range(10_000):
        timers.add(each, print, ()).cancel()
    assert len(timers) <= 2 * len(lasting) + 1
    for timer in lasting:
        timer.cancel()
        timer.cancel()
    assert (timers.next_due, len(timers)) == (math.inf, 0)


def test_a_timer_that_is_over_holds_nothing() -> None:
    class Owner:
        def call(self) -> None:
            pass

    timers = Timers()
    gc.disable()
    try:
        for end in ("cancel", "call"):
            owner = Owner()
            timer = owner.timer = timers.add(1, owner.call, ())  # type: ignore[attr-defined]
            if end == "cancel":
                timer.cancel()
            else:
                found = timers.pop(1)
                assert found is not None
                found[1].make()
                found[1].make()
                del found
            gone = weakref.ref(owner)
            del owner, timer
            assert gone() is None
    finally:
        gc.enable()


async def test_a_clock_wakes_the_machine_once_for_many_timers() -> None:
    machine = CountingMachine()
    clock = Clock(machine)
    for _ in range(1000):
        clock.call_later(30, print).cancel()
    assert machine.calls == 1


class CountingMachine(ManualClock):
    """A machine that counts its timers."""

    calls = 0

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object):  # type: ignore[no-untyped-def]
        self.calls += 1
        return super().call_later(seconds, callback, *args)


async def test_a_sleep_that_is_cancelled_leaves_no_timer() -> None:
    clock, _ = over_manual()
    task = asyncio.create_task(clock.sleep(10))
    await settle()
    task.cancel()
    await eventually(task.done)
    await asyncio.wait_for(clock.pass_time(20), 10)
    assert task.cancelled()
