"""The event log: its bounds, its partitions, its readers, and its followers."""

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

from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.store import MemoryStore
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.event import TELEMETRY, Event, Origin, PartitionName
from emulator.hub.messages.event_batch import LogEntry
from emulator.hub.messages.event_log import EventLog, Partition
from emulator.hub.messages.message import Message
from tests.clock import ManualClock

NOW = datetime(2026, 1, 31, 14, 46, 8, 123456, tzinfo=UTC)


# What a message without a body takes.
EMPTY = Message(b"").memory


def origin(device: str = "d", module: str | None = None) -> Origin:
    key = IdentityKey(device, module)
    return Origin(key, TELEMETRY, Admission(key, math.inf, "1", "{}"))


def append(
    log: EventLog,
    body: bytes = b"",
    device: str = "d",
    module: str | None = None,
) -> Event:
    log.extend(origin(device, module), [Message(body)])
    event = log.partition_of(device).last
    assert event is not None
    return event


def numbers(events: list[Event]) -> list[int]:
    return [event.number for event in events]


# --- bounds


def test_events_are_numbered_from_zero() -> None:
    log = EventLog()
    assert log.end == 0
    assert [append(log).number for _ in range(3)] == [0, 1, 2]
    assert (numbers(log.read()), log.end) == ([0, 1, 2], 3)


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
    size=st.integers(0, 50),
    batches=st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=9), max_size=9),
    start=st.integers(0, 40),
)
def test_the_log_holds_as_many_of_the_last_events_as_fit(
    events: int, size: int, batches: list[list[int]], start: int
) -> None:
    log = EventLog(events, size * 100, partitions=2)
    fits: deque[tuple[int, int]] = deque()
    number = 0
    for device, batch in enumerate(batches):
        messages = [Message(bytes(each * 100)) for each in batch]
        log.extend(origin(str(device)), messages)
        for each in batch:
            fits.append((number, each))
            number += 1
        while len(fits) > events or sum(EMPTY + each * 100 for _, each in fits) > size * 100:
            fits.popleft()
    found = log.read()
    assert [(each.number, len(each.message.body) // 100) for each in found] == list(fits)
    assert numbers(log.read(start)) == [number for number, _ in fits if number >= start]
    assert numbers(log.read(start, most=2)) == numbers(log.read(start))[:2]
    for partition in log.partitions:
        own = [each.sequence_number for each in found if each.partition is partition.name]
        assert own == list(range(partition.begin, partition.end))
        assert [each.sequence_number for each in partition.read(0, 99)] == own
        later = [each for each in own if each >= start]
        assert [each.sequence_number for each in partition.read(start, 2)] == later[:2]
        if own:
            assert partition.last is not None
            assert partition.last.sequence_number == own[-1]


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
            log.extend(Origin(sender.key, TELEMETRY, sender), [make(number)])
            if log.read(most=1)[0].number:  # the first events were dropped
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
    from_module = Origin(sender.key, TELEMETRY, sender)
    event = Event(7, PartitionName(2, 1000), 5, NOW, from_module, message)
    document = event.document()
    assert document.pop("body") == {"t": 1.5}
    assert document == {
        "sequenceNumber": 7,
        "enqueuedTime": "2026-01-31T14:46:08.123456Z",
        "partitionId": "2",
        "partitionSequenceNumber": 5,
        "offset": "1005",
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


def test_an_event_without_a_sender_does_not_say_how_it_authenticated() -> None:
    about = Origin(IdentityKey("d"), "twinChangeEvents")
    event = Event(0, PartitionName(0, 1), 0, NOW, about, Message(b""))
    assert list(event.annotations) == [
        *("iothub-connection-device-id", "iothub-message-source", "iothub-enqueuedtime"),
    ]


# --- what comes together


class CountingStore(MemoryStore):
    """A store that counts what is appended to its log, and can be full."""

    def __init__(self, *, lasts: bool) -> None:
        super().__init__()
        self.lasts = lasts
        self.stored: list[int] = []
        self.full = False

    def append(self, number: int, entry: object, *, oldest: int) -> None:
        if self.full:
            raise ServiceUnavailable
        assert isinstance(entry, LogEntry)
        self.stored.append(sum(len(each.messages) for each in entry.batches))


def send(log: EventLog, done: list[ServiceUnavailable | None], count: int) -> None:
    """Let devices send in one turn of the event loop."""
    for number in range(count):
        device = f"d{number}"
        log.extend_soon(log.place_of(device), origin(device), [Message(b"")], done.append)


async def test_messages_that_come_in_one_turn_of_the_loop_are_stored_together() -> None:
    store, done = CountingStore(lasts=True), list[ServiceUnavailable | None]()
    log = EventLog(store=store)
    send(log, done, 1)  # a device that sends alone does not wait
    assert (len(done), store.stored) == (1, [1])
    send(log, done, 5)
    assert (len(done), store.stored) == (1, [1])
    await asyncio.sleep(0)
    assert (done, store.stored) == ([None] * 6, [1, 5])
    done.clear()
    send(log, done, 70)  # and many do not wait for all others
    assert (len(done), store.stored) == (65, [1, 5, 1, 32, 32])
    await asyncio.sleep(0)
    assert (len(done), store.stored) == (70, [1, 5, 1, 32, 32, 5])
    assert numbers(log.read()) == list(range(76))


async def test_messages_that_a_full_store_refuses_are_refused_together() -> None:
    store, done = CountingStore(lasts=True), list[ServiceUnavailable | None]()
    log = EventLog(store=store)
    send(log, done, 1)
    store.full = True
    send(log, done, 2)
    await asyncio.sleep(0)
    assert [error is None for error in done] == [True, False, False]
    store.full = False
    send(log, done, 1)
    assert [error is None for error in done] == [True, False, False, True]
    assert numbers(log.read()) == [0, 1]


async def test_in_memory_nothing_waits_and_a_reader_sees_all() -> None:
    store, done = CountingStore(lasts=False), list[ServiceUnavailable | None]()
    log = EventLog(store=store, partitions=128)
    partition, calls = log.partition_of("d0"), list[int]()
    partition.listeners.append(lambda: calls.append(partition.end))
    send(log, done, 3)
    assert (done, store.stored, calls) == ([None] * 3, [], [])
    await asyncio.sleep(0)
    assert (store.stored, calls) == ([3], [1])
    send(log, done, 1)
    assert partition.last is not None
    assert (partition.last.sequence_number, log.end, partition.end) == (1, 4, 2)


# --- partitions


def partition_with(log: EventLog, count: int, clock: ManualClock | None = None) -> Partition:
    """Return a partition with events; each is a second younger than the one before."""
    for _ in range(count):
        append(log)
        if clock is not None:
            clock.advance(1)
    return log.partition_of("d")


def found(partition: Partition, start: int, most: int = 100) -> list[int]:
    return [event.sequence_number for event in partition.read(start, most)]


def test_a_device_always_has_the_same_partition_and_the_partitions_share_the_devices() -> None:
    log, later = EventLog(partitions=8), EventLog(partitions=8)
    ids = [f"device-{number}" for number in range(200)]
    chosen = [log.partition_of(each).id for each in ids]
    assert chosen == [later.partition_of(each).id for each in ids]
    assert set(chosen) == {str(number) for number in range(8)}
    # Of today: a change would move devices.
    assert [log.partition_of(each).id for each in ("myDeviceId", "d")] == ["6", "4"]


def test_partitions_number_their_events_and_the_log_has_their_order() -> None:
    log = EventLog(partitions=2)
    assert log.partition_of("a") is not log.partition_of("d")
    for device in "addad":
        append(log, device=device)
    assert [(each.device_id, each.sequence_number) for each in log.read()] == [
        *(("a", 0), ("d", 0), ("d", 1), ("a", 1), ("d", 2)),
    ]
    assert numbers(log.read(partition=log.partition_of("d"))) == [1, 2, 4]
    assert numbers(log.read(2, partition=log.partition_of("d"), most=1)) == [2]


def test_the_modules_of_a_device_share_its_partition() -> None:
    log = EventLog(partitions=128)
    assert append(log, module="m").partition == append(log).partition


def test_a_partition_is_read_in_parts() -> None:
    partition = partition_with(EventLog(), 5)
    assert (found(partition, 0), found(partition, 2, 2)) == ([0, 1, 2, 3, 4], [2, 3])
    assert found(partition, 5) == found(partition, 99) == []
    assert (partition.begin, partition.end) == (0, 5)


def test_a_reader_that_is_too_slow_continues_at_the_oldest_event() -> None:
    partition = partition_with(EventLog(events=3), 9)
    assert (found(partition, 2), partition.begin) == ([6, 7, 8], 6)


def test_a_partition_without_events_begins_where_it_ends() -> None:
    log = EventLog(events=1)
    partition = partition_with(log, 2)
    append(log, device="myDeviceId")
    assert (partition.begin, partition.end, found(partition, 0)) == (2, 2, [])
    assert partition.last is not None
    assert partition.last.sequence_number == 1


def test_offsets_are_texts_that_grow_and_an_offset_is_a_start() -> None:
    partition = partition_with(EventLog(), 5)
    offsets = [int(each.offset) for each in partition.read(0, 5)]
    assert offsets == sorted(set(offsets))
    assert [partition.after_offset(each) for each in offsets] == [1, 2, 3, 4, 5]
    assert partition.after_offset(offsets[3], inclusive=True) == 3
    assert partition.after_offset(-1) == partition.after_offset(0) == 0


def test_a_sequence_number_is_a_start() -> None:
    partition = partition_with(EventLog(events=3), 5)
    assert [partition.after(each) for each in (-1, 0, 2, 3, 4)] == [2, 2, 3, 4, 5]
    assert [partition.after(each, inclusive=True) for each in (0, 2, 4, 5)] == [2, 2, 4, 5]


def test_a_reader_that_knows_an_earlier_run_reads_all_of_this_one(clock: ManualClock) -> None:
    earlier = partition_with(EventLog(clock=clock), 5).read(4, 1)[0]
    clock.advance(1)
    partition = partition_with(EventLog(clock=clock), 2)
    assert partition.after(earlier.sequence_number) == 0
    assert partition.after_offset(int(earlier.offset)) == 0


def test_a_time_is_a_start(clock: ManualClock) -> None:
    first = int(clock.now().timestamp() * 1000)
    partition = partition_with(EventLog(clock=clock), 5, clock)
    assert [partition.after_time(first + each) for each in (-1, 0, 999, 1000, 9000)] == [
        *(0, 1, 1, 2, 5),
    ]
    assert [partition.after_time(first + each, inclusive=True) for each in (-1, 0, 1)] == [0, 0, 1]


def test_events_are_dropped_when_they_are_too_old(clock: ManualClock) -> None:
    log = EventLog(clock=clock, retention=60)
    append(log)
    clock.advance(40)
    append(log)
    partition = log.partition_of("d")
    assert (partition.begin, numbers(log.read())) == (0, [0, 1])
    clock.advance(21)
    assert (partition.begin, numbers(log.read()), found(partition, 0)) == (1, [1], [1])
    clock.advance(40)
    assert (partition.begin, log.read(), found(partition, 0)) == (2, [], [])


def test_a_listener_is_called_for_its_partition_alone() -> None:
    log, calls = EventLog(), list[int]()
    partition = log.partition_of("d")
    partition.listeners.append(lambda: calls.append(partition.end))
    log.extend(origin(), [Message(b"1"), Message(b"2")])
    append(log, device="myDeviceId")
    append(log)
    assert calls == [2, 3]


def test_consumer_groups_are_known_by_name_in_any_letter_case() -> None:
    log = EventLog(consumer_groups=["Mine"])
    assert [log.has_group(each) for each in ("$Default", "$DEFAULT", "mine", "other", "")] == [
        *(True, True, True, False, False),
    ]


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
