"""The event log: the events of all devices, in partitions, for readers at their own pace.

The log is bounded: the oldest events make room for new ones. A reader that is too slow finds a gap
in the sequence numbers, and continues at the oldest event.
"""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.signals import Signal
from emulator.hub.core.store import Key, MemoryStore, Store
from emulator.hub.core.tail import Tail
from emulator.hub.messages.event import Event, Origin, PartitionName
from emulator.hub.messages.message import Message

ENTITY = "iothub-ehub-emulator"
"""The Event Hubs-compatible name; a real hub's is `iothub-ehub-{name}-{number}-{hex}`."""

DEFAULT_GROUP = "$Default"
"""The consumer group that every hub has."""


# So many events can be too many until the next reader, or the next message, drops them together.
_SPARE = 64
# How many events an entry of `entries` has at most.
_ENTRY = 500
# A partition forgets the numbers of dropped events at the latest after so many.
_TRIM = 1_000


class LogStart(Struct, frozen=True):
    """When a log began, and how many partitions it has: neither ever changes."""

    created: datetime
    partitions: int

    @property
    def key(self) -> Key:
        """See `Record.key`: a hub has one log."""
        return ("events",)


class EventBatch(Struct, frozen=True, array_like=True, gc=False):
    """Events of one origin that came at once.

    Args:
        partition: the number of their partition.
        sequence_number: that of the first event.
    """

    partition: int
    sequence_number: int
    enqueued: datetime
    origin: Origin
    messages: tuple[Message, ...]


class LogEntry(Struct, frozen=True):
    """Events that were stored together.

    Args:
        number: the number of the first event.
        ends: the next sequence number of each partition, behind these events.
    """

    number: int
    batches: tuple[EventBatch, ...]
    ends: tuple[int, ...]


# What `extend_soon` calls at the end: with an error if the events were not stored.
Done = Callable[[ServiceUnavailable | None], object]


class Partition:
    """A part of the log: all events of some devices (Event Hubs docs: features).

    Args:
        name: what its events know of it.
        log: the log, which has the events.
    """

    def __init__(self, name: PartitionName, log: EventLog) -> None:
        self.name = name
        self.numbers: Tail[int] = Tail()
        """By the sequence number of each event: its number in the log."""
        self.last: Event | None = None
        """The newest event, also if the log has dropped it."""
        self.listeners: list[Callable[[], object]] = []
        """Called when the partition has new events, and again if they are of several senders."""
        self._log = log

    @property
    def id(self) -> str:
        """Its name for readers."""
        return self.name.id

    @property
    def end(self) -> int:
        """The sequence number that the next event will have."""
        return self.numbers.end

    @property
    def begin(self) -> int:
        """The sequence number of the oldest event; an empty partition has that of the next one."""
        self._log.drop_old()
        self.trim()
        return self.numbers.begin

    def begin_at(self, sequence_number: int) -> None:
        """Continue a partition of an earlier run, of which no event is here yet."""
        self.numbers = Tail(sequence_number)

    def trim(self) -> None:
        """Forget the numbers of events that the log has dropped."""
        if self.numbers and self.numbers.first < self._log.events.begin:
            self.numbers.drop(self._find(self._log.events.begin) - self.numbers.begin)

    def read(self, start: int, most: int) -> list[Event]:
        """List the events that exist from sequence number `start` on, `most` of them at most."""
        start = max(start, self.begin)
        return [self._event(each) for each in range(start, min(start + most, self.end))]

    def read_log(self, start: int) -> Iterator[Event]:
        """List the events that exist from a number in the log on."""
        self.trim()
        return (self._event(each) for each in range(self._find(start), self.end))

    def _event(self, sequence_number: int) -> Event:
        return self._log.events[self.numbers[sequence_number]]

    def _find(self, number: int) -> int:
        """Return the sequence number of the first event from a number in the log on."""
        begin, numbers = self.numbers.begin, self.numbers
        place = bisect.bisect_left(range(begin, self.end), number, key=numbers.__getitem__)
        return begin + place

    def after_offset(self, offset: int, *, inclusive: bool = False) -> int:
        """Return the sequence number behind an offset, or at it."""
        return self.after(offset - self.name.first_offset, inclusive=inclusive)

    def after(self, sequence_number: int, *, inclusive: bool = False) -> int:
        """Return the sequence number behind another one, or that one.

        A reader can know a number of an earlier run, which this run has not reached yet. It reads
        all events of this run.
        """
        start = sequence_number + (not inclusive)
        return self.begin if start > self.end else max(start, self.begin)

    def after_time(self, milliseconds: float, *, inclusive: bool = False) -> int:
        """Return the sequence number of the first event behind a time since 1970, or at it."""
        find = bisect.bisect_left if inclusive else bisect.bisect_right
        numbers = range(self.begin, self.end)
        return numbers.start + find(
            numbers, milliseconds, key=lambda each: self._event(each).enqueued_ms
        )


class EventLog:
    """The events of all devices, in order.

    Args:
        events: how many it holds at most.
        size: how many bytes of memory its messages take at most.
        clock: the clock of the hub.
        partitions: how many parts it has.
        retention: how long it keeps an event, in seconds.
        consumer_groups: the names of consumer groups; `$Default` is always there.
        store: where the events of an earlier run are, and where events are kept.
    """

    def __init__(
        self,
        events: int = limits.EVENT_LOG_EVENTS,
        size: int = limits.EVENT_LOG_BYTES,
        clock: Clock | None = None,
        *,
        partitions: int = limits.EVENT_LOG_PARTITIONS,
        retention: float = limits.EVENT_LOG_RETENTION,
        consumer_groups: Iterable[str] = (),
        store: Store | None = None,
    ) -> None:
        self._max_events = events
        self._max_size = size
        self._retention = timedelta(seconds=retention)
        self._clock = clock = clock or Clock()
        self._store = store = store or MemoryStore()
        start = _start(store, clock, partitions)
        self.created = start.created
        """When the log began."""
        self._first_expiry = self.created
        self.events: Tail[Event] = Tail()
        """All events that the log holds."""
        self._size = 0
        self._stopped = False
        self._appended = Signal(clock.machine)  # a reader waits, not the hub
        # Offsets are larger than those of earlier logs: a reader that continues where an earlier
        # log ended receives all events of this one.
        first_offset = int(self.created.timestamp() * 1_000_000)
        self.partitions = [
            Partition(PartitionName(each, first_offset), self) for each in range(start.partitions)
        ]
        self._pending: list[tuple[Origin, Iterable[Message], datetime, Done]] = []
        self._groups = {each.lower() for each in (DEFAULT_GROUP, *consumer_groups)}
        self._load()

    @property
    def end(self) -> int:
        """The number that the next event will have."""
        return self.events.end

    def now(self) -> datetime:
        """Return the time of the hub."""
        return self._clock.now()

    def has_group(self, name: str) -> bool:
        """Return whether a consumer group exists; letter case makes no difference."""
        return name.lower() in self._groups

    def find_partition(self, partition_id: str) -> Partition | None:
        """Return the partition with an id; None if it is unknown."""
        return next((each for each in self.partitions if each.id == partition_id), None)

    def partition_of(self, device_id: str) -> Partition:
        """Return the partition that has the events of a device; it is always the same one."""
        return self.partitions[zlib.crc32(device_id.encode()) % len(self.partitions)]

    def extend(self, origin: Origin, messages: Iterable[Message], now: datetime) -> None:
        """Stamp messages of one origin, and keep them.

        Raises:
            ServiceUnavailable: the store can't write; no message is kept.
        """
        errors: list[ServiceUnavailable | None] = []
        self._pending.append((origin, messages, now, errors.append))
        self.flush()
        if errors[0] is not None:
            raise errors[0]

    def extend_soon(
        self, origin: Origin, messages: Iterable[Message], now: datetime, done: Done
    ) -> None:
        """As `extend`, together with other messages; then call `done`."""
        self._pending.append((origin, messages, now, done))
        if len(self._pending) == 1:
            self._store.soon(self.flush)

    def flush(self) -> None:
        """Keep the messages that wait, together."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        batches, end = [], self.events.end
        ends = [partition.numbers.end for partition in self.partitions]
        for origin, messages, now, _ in pending:
            if kept := tuple(messages):
                place = self.partition_of(origin.key.device_id if origin.key else "").name.number
                batches.append(EventBatch(place, ends[place], now, origin, kept))
                ends[place] += len(kept)
                end += len(kept)
        error = None
        if batches:
            entry = LogEntry(self.events.end, tuple(batches), tuple(ends))
            try:
                self._store.append(end - 1, entry, oldest=self.events.begin)
                self._keep(batches)
            except ServiceUnavailable as failure:
                error = failure
        for each in pending:
            each[3](error)

    def stop(self) -> None:
        """Keep the messages that wait, and end the waits of readers: the hub is stopping."""
        self.flush()
        self._stopped = True
        self._appended.send()

    def clear(self) -> None:
        """Drop all events; the numbers of the next ones continue.

        Raises:
            ServiceUnavailable: the store can't write; nothing has changed.
        """
        self.flush()
        if not self.end:
            return
        ends = tuple(partition.end for partition in self.partitions)
        # In the place of the last entry, so that the next one has a number of its own.
        last = self.end - 1
        self._store.append(last, LogEntry(self.end, (), ends), oldest=last)
        self.events.drop(len(self.events))
        self._size = 0

    def entries(self) -> Iterator[tuple[int, LogEntry]]:
        """Return the events as a store has them: entries, each with its number."""
        self.flush()
        self.drop_old()
        ends = [partition.begin for partition in self.partitions]
        numbers = range(self.events.begin, self.end)
        for start in range(numbers.start, numbers.stop, _ENTRY):
            some = [self.events[each] for each in numbers[start - numbers.start :][:_ENTRY]]
            batches = []
            for (partition, origin, now), events in itertools.groupby(some, _batch_of):
                of_batch = tuple(events)
                messages = tuple(each.message for each in of_batch)
                first = of_batch[0].sequence_number
                batches.append(EventBatch(partition, first, now, origin, messages))
                ends[partition] += len(messages)
            yield some[-1].number, LogEntry(start, tuple(batches), tuple(ends))
        if self.end and not numbers:
            yield self.end - 1, LogEntry(self.end, (), tuple(ends))

    def _keep(self, batches: list[EventBatch]) -> None:
        """Keep events that the store has, and notify their readers."""
        for batch in batches:
            self._add(batch)
        now = batches[-1].enqueued
        most = self.events.begin + self._max_events + _SPARE
        if self.events.end > most or self._size > self._max_size or now >= self._first_expiry:
            self.drop_old(now)
        self._appended.send()
        for batch in batches:
            if listeners := self.partitions[batch.partition].listeners:
                for listener in tuple(listeners):
                    listener()

    def _load(self) -> None:
        """Take the events that an earlier run has left."""
        ends: tuple[int, ...] = ()
        for entry in self._store.entries(LogEntry):
            if not ends:
                self.events = Tail(entry.number)
            for batch in entry.batches:
                partition = self.partitions[batch.partition]
                if not partition.numbers:
                    partition.begin_at(batch.sequence_number)
                self._add(batch)
            ends = entry.ends
        for partition, end in zip(self.partitions, ends, strict=False):
            if not partition.numbers:  # all its events were dropped
                partition.begin_at(end)
        self.drop_old()

    def _add(self, batch: EventBatch) -> None:
        partition = self.partitions[batch.partition]
        name, numbers = partition.name, partition.numbers
        number, sequence_number, size = self.events.end, numbers.end, self._size
        now, origin, events, places = batch.enqueued, batch.origin, [], []
        for message in batch.messages:
            memory = message.memory
            events.append(Event(number, name, sequence_number, now, origin, message, memory))
            places.append(number)
            number += 1
            sequence_number += 1
            size += memory
        self.events.extend(events)
        numbers.extend(places)
        partition.last, self._size = events[-1], size

    def drop_old(self, now: datetime | None = None) -> None:
        """Drop the events that are too many, too large or too old."""
        events = self.events
        if (excess := len(events) - self._max_events) > 0:
            self._size -= sum(each.memory for each in events.drop(excess))
        while self._size > self._max_size:
            self._size -= events.drop()[0].memory
        now = now or self._clock.now()
        if now >= self._first_expiry:
            while events and events.first.enqueued <= now - self._retention:
                self._size -= events.drop()[0].memory
            self._first_expiry = (events.first.enqueued if events else now) + self._retention
        for partition in self.partitions:
            if partition.numbers and partition.numbers.first < events.begin - _TRIM:
                partition.trim()

    def read(
        self,
        start: int = 0,
        device_id: str | None = None,
        most: int | None = None,
        partition: Partition | None = None,
    ) -> list[Event]:
        """List the events from number `start` on, of all devices or of one.

        Args:
            start: the number of the first event.
            device_id: the device; None is all.
            most: how many events to return at most; None is all.
            partition: the partition; None is all.
        """
        self.drop_old()
        # A partition has all events of a device.
        if partition is None and device_id is not None:
            partition = self.partition_of(device_id)
        if partition is None:
            numbers = range(max(start, self.events.begin), self.end)
            found: Iterator[Event] = (self.events[number] for number in numbers)
        else:
            found = partition.read_log(start)
        chosen = (each for each in found if device_id in (None, each.device_id))
        return list(itertools.islice(chosen, most))

    async def wait(
        self,
        start: int,
        device_id: str | None = None,
        *,
        seconds: float,
        most: int | None = None,
        partition: Partition | None = None,
    ) -> list[Event]:
        """Return the events from `start` on; wait up to `seconds` if the log has none yet.

        Raises:
            ServiceUnavailable: the hub is stopping, so there will be none.
        """

        def find() -> list[Event]:
            nonlocal start
            if self._stopped:
                raise ServiceUnavailable
            events = self.read(start, device_id, most, partition)
            start = max(start, self.end)
            return events

        return await self._appended.wait_for(find, seconds)


def _batch_of(event: Event) -> tuple[int, Origin, datetime]:
    return event.partition.number, event.origin, event.enqueued


def _start(store: Store, clock: Clock, partitions: int) -> LogStart:
    """Return how the log of a store began; it begins now if the store has none.

    The number of partitions of a hub is constant (IoT Hub docs: scaling).
    """
    for start in store.scan(LogStart):
        return start
    start = LogStart(clock.now(), partitions)
    store.commit(put=(start,))
    return start
