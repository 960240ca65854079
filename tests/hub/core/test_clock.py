import asyncio
from datetime import UTC, datetime, timedelta

from emulator.hub.core.clock import SystemClock


async def test_the_clock_of_the_machine_tells_the_time_and_waits() -> None:
    clock, calls = SystemClock(), asyncio.Queue[int]()
    start = clock.monotonic()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=10)
    clock.call_later(0.001, calls.put_nowait, 1).cancel()
    clock.call_later(0.01, calls.put_nowait, 2)
    await clock.sleep(0.005)
    assert await asyncio.wait_for(calls.get(), 10) == 2
    assert clock.monotonic() > start
