import asyncio

import pytest

from emulator.hub.core.signals import Signal
from tests.clock import ManualClock


async def wait_for(signal: Signal, found: list[int]) -> asyncio.Task[list[int]]:
    """Start to wait until `found` has a number, for 10 seconds."""
    waiting = asyncio.create_task(signal.wait_for(lambda: found, 10))
    await asyncio.sleep(0)
    return waiting


async def test_a_result_that_is_there_needs_no_signal(clock: ManualClock) -> None:
    assert await Signal(clock).wait_for(lambda: [1], 10) == [1]
    assert await Signal(clock).wait_for(list, 0) == []


async def test_a_signal_wakes_each_task_that_finds_its_result(clock: ManualClock) -> None:
    signal, found, other = Signal(clock), list[int](), list[int]()
    waits = [await wait_for(signal, each) for each in (found, found, other)]
    found.append(1)
    signal.send()
    signal.send()
    assert await asyncio.wait_for(waits[0], 5) == await asyncio.wait_for(waits[1], 5) == [1]
    assert not waits[2].done()
    assert signal.awaited
    clock.advance(10)
    assert await asyncio.wait_for(waits[2], 5) == []
    assert not signal.awaited


async def test_a_task_waits_no_longer_than_its_time_however_often_it_is_woken(
    clock: ManualClock,
) -> None:
    signal = Signal(clock)
    waiting = await wait_for(signal, [])
    for _ in range(9):
        clock.advance(1)
        signal.send()
        await asyncio.sleep(0)
        assert not waiting.done()
    clock.advance(1)
    assert await asyncio.wait_for(waiting, 5) == []


async def test_a_cancelled_task_no_longer_waits(clock: ManualClock) -> None:
    signal = Signal(clock)
    waiting = await wait_for(signal, [])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not signal.awaited
    signal.send()
