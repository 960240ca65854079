"""The event log: its bounds, its readers, and its followers."""

import asyncio
import math
import tracemalloc
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.event_log import Event, EventLog
from emulator.hub.messages.message import Message
from tests.clock import ManualClock

NOW = datetime(2026, 1, 31, 14, 46, 8, 123456, tzinfo=UTC)


def append(log: EventLog, body: bytes = b"", device: str = "d", module: str | None = None) -> Event:
    sender = Admission(IdentityKey(device, module), math.inf, "1", "{}")
    log.extend(sender, [Message(body)], NOW)
    return Event(log.end - 1, NOW, sender, Message(body), Message(body).memory)


def numbers(events: list[Event]) -> list[int]:
    return [event.sequence_number for event in events]


# --- bounds


def test_events_are_numbered_from_zero() -> None:
    log = EventLog()
    assert log.end == 0
    assert [append(log).sequence_number for _ in range(3)] == [0, 1, 2]
    assert (numbers(log.read()), log.end) == ([0, 1, 2], 3)


EMPTY = Message(b"").memory


@pytest.mark.parametrize(
    ("bounds", "sizes", "kept"),
    [
        ({"events": 3}, [0, 0, 0, 0, 0], [2, 3, 4]),
        ({"size": 3 * EMPTY + 10}, [4, 4, 4, 1], [1, 2, 3]),
        ({"size": 2 * EMPTY + 10}, [4, 4, 4, 1, 10], [4]),
        ({"size": EMPTY + 10}, [0, 11], []),  # a message larger than the log leaves it empty
        ({"size": EMPTY + 10}, [0, 11, 10], [2]),
    ],
)
def test_a_full_log_drops_its_oldest_events(
    bounds: dict[str, int], sizes: list[int], kept: list[int]
) -> None:
    log = EventLog(**bounds)
    for size in sizes:
        append(log, bytes(size))
    assert (numbers(log.read()), log.end) == (kept, len(sizes))


@given(
    events=st.integers(1, 6),
    size=st.integers(0, 20),
    sizes=st.lists(st.integers(0, 25), max_size=30),
    start=st.integers(0, 40),
)
def test_the_log_holds_as_many_of_the_last_events_as_fit(
    events: int, size: int, sizes: list[int], start: int
) -> None:
    log = EventLog(events, size * 100)
    fits: deque[int] = deque()
    for number, each in enumerate(sizes):
        append(log, bytes(each * 100))
        fits.append(number)
        while len(fits) > events or sum(EMPTY + sizes[n] * 100 for n in fits) > size * 100:
            fits.popleft()
    assert numbers(log.read()) == list(fits)
    assert numbers(log.read(start)) == [number for number in fits if number >= start]
    assert numbers(log.read(start, most=2)) == numbers(log.read(start))[:2]


HOSTILE = {
    "names without values": lambda n: Message(b"", {}, {f"{n}-{i}": None for i in range(2_000)}),
    "short names and values": lambda n: Message(b"", {}, {f"{n}-{i}": f"{i}" for i in range(500)}),
    "wide characters": lambda n: Message(b"", {}, {f"{n}": "a" * 50_000 + "\N{OWL}"}),
    "a large body": lambda n: Message(bytes(100_000 + n)),
    "nothing at all": lambda n: Message(b"", {}, {}),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_the_log_takes_no_more_memory_than_its_bound(make: Callable[[int], Message]) -> None:
    bound = 4 * 1024 * 1024
    log = EventLog(100_000, bound)
    tracemalloc.start()
    try:
        for number in range(10_000):
            sender = Admission(IdentityKey(f"d{number}"), math.inf, f"1{number}", f"{{}}{number}")
            log.extend(sender, [make(number)], NOW)
            if number > 50 and len(log.read()) <= number:
                break
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bound / 4 < taken < 1.25 * bound


# --- readers


def test_a_reader_can_start_at_a_number_and_choose_a_device() -> None:
    log = EventLog(events=4)
    for device, module in (("a", None), ("b", None), ("a", "m"), ("b", "m"), ("a", None)):
        append(log, device=device, module=module)
    assert numbers(log.read(device_id="a")) == [2, 4]
    assert numbers(log.read(3)) == [3, 4]
    assert numbers(log.read(3, "b")) == [3]
    assert log.read(device_id="c") == log.read(5) == log.read(99) == []


def test_the_document_of_an_event_has_all_its_members() -> None:
    message = Message(
        b'{"t":1.50}', {"content-type": "application/json", "dt-subject": "c"}, {"a": None}
    )
    sender = Admission(IdentityKey("d", "m"), math.inf, "42", '{"scope":"module"}', "dtmi:x;1")
    event = Event(7, NOW, sender, message, message.memory)
    document = event.document()
    assert document.pop("body") == {"t": 1.5}
    assert document == {
        "sequenceNumber": 7,
        "enqueuedTime": "2026-01-31T14:46:08.123456Z",
        "deviceId": "d",
        "moduleId": "m",
        "systemProperties": {"content-type": "application/json", "dt-subject": "c"},
        "properties": {"a": None},
        "annotations": {
            "iothub-connection-device-id": "d",
            "iothub-connection-module-id": "m",
            "iothub-connection-auth-method": '{"scope":"module"}',
            "iothub-connection-auth-generation-id": "42",
            "iothub-enqueuedtime": 1769870768123,
            "iothub-message-source": "Telemetry",
            "dt-dataschema": "dtmi:x;1",
            "dt-subject": "c",
        },
    }


# --- followers


async def take(
    log: EventLog, count: int, start: int = 0, device_id: str | None = None
) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += numbers(await log.wait(start, device_id, seconds=5))
        start = found[-1] + 1
    return found[:count]


async def test_a_follower_receives_present_and_later_events() -> None:
    log = EventLog()
    append(log)
    following = asyncio.ensure_future(take(log, 3))
    await asyncio.sleep(0)
    append(log)
    append(log)
    assert await asyncio.wait_for(following, 5) == [0, 1, 2]


async def test_a_follower_of_one_device_receives_no_other_events() -> None:
    log = EventLog()
    following = asyncio.ensure_future(take(log, 2, device_id="a"))
    for device in ("b", "a", "b", "b", "a"):
        await asyncio.sleep(0)
        append(log, device=device)
    assert await asyncio.wait_for(following, 5) == [1, 4]


async def test_a_follower_can_start_at_a_later_number() -> None:
    log = EventLog()
    following = asyncio.ensure_future(take(log, 1, start=2))
    for _ in range(3):
        await asyncio.sleep(0)
        assert not following.done()
        append(log)
    assert await asyncio.wait_for(following, 5) == [2]


async def test_a_slow_follower_finds_a_gap_and_no_event_twice() -> None:
    log = EventLog(events=3)
    append(log)
    assert await take(log, 1) == [0]
    for _ in range(9):
        append(log)
    assert await take(log, 3, start=1) == [7, 8, 9]


@pytest.mark.parametrize("device_id", [None, "a"])
async def test_a_wait_for_events_ends_without_any_when_its_time_is_over(
    device_id: str | None, clock: ManualClock
) -> None:
    log = EventLog(clock=clock)
    wait = asyncio.ensure_future(log.wait(1, device_id, seconds=15))
    await asyncio.sleep(0)
    append(log, device="b")
    clock.advance(14)
    await asyncio.sleep(0)
    assert not wait.done()
    clock.advance(1)
    assert await asyncio.wait_for(wait, 5) == []


async def test_a_cancelled_follower_does_not_disturb_the_others() -> None:
    log = EventLog()
    leaving, staying = (asyncio.ensure_future(take(log, 1)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    append(log)
    assert await asyncio.wait_for(staying, 5) == [0]


@pytest.mark.parametrize("burst", [1, 4])
async def test_followers_receive_every_event_once_and_in_order(burst: int) -> None:
    log = EventLog()
    following = [asyncio.ensure_future(take(log, 40)) for _ in range(3)]
    events = iter(range(40))
    while part := list(islice(events, burst)):
        for _ in part:
            append(log)
        await asyncio.sleep(0)
    for each in following:
        assert await asyncio.wait_for(each, 5) == list(range(40))
