"""The event log: the events of all devices, in partitions, for readers at their own pace.

The log is bounded: the oldest events make room for new ones. A reader that is too slow finds a gap
in the sequence numbers, and continues at the oldest event.
"""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.signals import Signal
from emulator.hub.core.store import Key, MemoryStore, Store
from emulator.hub.core.tail import Tail
from emulator.hub.core.times import milliseconds
from emulator.hub.messages.event import Event, Origin, PartitionName
from emulator.hub.messages.event_batch import (
    NUMBER,
    SEQUENCE_NUMBER,
    EventBatch,
    LogEntry,
    events_from,
    memory_of,
)
from emulator.hub.messages.message import Message

ENTITY = "iothub-ehub-emulator"
"""The Event Hubs-compatible name; a real hub's is `iothub-ehub-{name}-{number}-{hex}`."""

DEFAULT_GROUP = "$Default"
"""The consumer group that every hub has."""


# The log can have so many events more than its bound: then a message need not drop one each time.
_SPARE = 64
# How many batches an entry of `entries` has at most.
_ENTRY = 100
# So many senders that send in one turn of the event loop are stored together. If they were more,
# the processor's caches would not hold their connections any more when they get their answers.
_TOGETHER = 32
# What `behind_pending` adds has no messages, and so no sender.
_NOBODY = Origin(None)


class LogStart(Struct, frozen=True):
    """When a log began, and how many partitions it has: neither ever changes."""

    created: datetime
    partitions: int

    @property
    def key(self) -> Key:
        """See `Record.key`: a hub has one log."""
        return ("events",)


# What `extend_soon` calls at the end: with an error if the events were not stored.
Done = Callable[[ServiceUnavailable | None], object]

# The number of a partition, where messages are from, the messages, and what is called at the end.
_Pending = tuple[int, Origin, Iterable[Message], Done | None]


class Partition:
    """A part of the log: all events of some devices (Event Hubs docs: features).

    Args:
        name: what its events know of it.
        log: the log, which has the events.
    """

    def __init__(self, name: PartitionName, log: EventLog) -> None:
        self.name = name
        self.batches: Tail[EventBatch] = Tail()
        """Its part of the batches that the log holds."""
        self.listeners: list[Callable[[], object]] = []
        """Called when the partition has new events, and again if they are of several senders."""
        self._last: Event | None = None  # while the log has no event
        self._log = log

    @property
    def id(self) -> str:
        """Its name for readers."""
        return self.name.id

    @property
    def end(self) -> int:
        """The sequence number that the next event will have."""
        return self._log.ends[self.name.number]

    @property
    def begin(self) -> int:
        """The sequence number of the oldest event; an empty partition has that of the next one."""
        self._log.drop_old()
        return self.batches.first.sequence_number if self.batches else self.end

    @property
    def last(self) -> Event | None:
        """The newest event, also if the log has dropped it."""
        self._log.flush()
        if not self.batches:
            return self._last
        batch = self.batches[self.batches.end - 1]
        return batch.event(len(batch.messages) - 1, self.name)

    def drop(self, count: int) -> None:
        """Drop the oldest batches, as the log does."""
        if count == len(self.batches):
            self._last = self.last
        self.batches.drop(count)

    def read(self, start: int, most: int) -> list[Event]:
        """List the events that exist from sequence number `start` on, `most` of them at most."""
        self._log.drop_old()
        events = events_from(self.batches, start, SEQUENCE_NUMBER, self._log.names)
        return list(itertools.islice(events, most))

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

    def after_time(self, time: float, *, inclusive: bool = False) -> int:
        """Return the sequence number of the first event behind a time, or at it.

        Args:
            time: milliseconds since 1970.
            inclusive: whether an event at that time counts.
        """
        self._log.drop_old()
        batches, find = self.batches, bisect.bisect_left if inclusive else bisect.bisect_right
        numbers = range(batches.begin, batches.end)
        place = find(numbers, time, key=lambda each: milliseconds(batches[each].enqueued))
        found = numbers[place:]
        return batches[found[0]].sequence_number if found else self.end


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
        self._begin = self._end = 0
        self._batches: Tail[EventBatch] = Tail()
        self._size = 0
        self._stopped = False
        self._appended = Signal(clock.machine)  # a reader waits, not the hub
        # Offsets are larger than those of earlier logs: a reader that continues where an earlier
        # log ended receives all events of this one.
        first_offset = int(self.created.timestamp() * 1_000_000)
        self.names = [PartitionName(each, first_offset) for each in range(start.partitions)]
        """What events know of each partition."""
        self._ends = [0] * start.partitions
        self.partitions = [Partition(name, self) for name in self.names]
        self._pending: list[_Pending] = []
        self._in_turn = False  # whether messages have come in this turn of the event loop
        self.groups = {each.lower(): each for each in (DEFAULT_GROUP, *consumer_groups)}
        """The names of the consumer groups, by their lower case."""
        self._load()

    @property
    def begin(self) -> int:
        """The number of the oldest event; an empty log has that of the next one."""
        self.flush()
        return self._begin

    @property
    def end(self) -> int:
        """The number of the next event."""
        self.flush()
        return self._end

    @property
    def ends(self) -> list[int]:
        """The next sequence number of each partition."""
        self.flush()
        return self._ends

    def now(self) -> datetime:
        """Return the time of the hub."""
        return self._clock.now()

    def has_group(self, name: str) -> bool:
        """Return whether a consumer group exists; letter case makes no difference."""
        return name.lower() in self.groups

    def find_partition(self, partition_id: str) -> Partition | None:
        """Return the partition with an id; None if it is unknown."""
        return next((each for each in self.partitions if each.id == partition_id), None)

    def partition_of(self, device_id: str) -> Partition:
        """Return the partition that has the events of a device; it is always the same one."""
        return self.partitions[self.place_of(device_id)]

    def place_of(self, device_id: str) -> int:
        """Return the number of that partition."""
        return zlib.crc32(device_id.encode()) % len(self.partitions)

    def extend(self, origin: Origin, messages: Iterable[Message]) -> None:
        """Stamp messages of one origin, and keep them.

        Raises:
            ServiceUnavailable: the store can't write; no message is kept.
        """
        errors: list[ServiceUnavailable | None] = []
        place = self.place_of(origin.key.device_id if origin.key else "")
        self._pending.append((place, origin, messages, errors.append))
        self.flush()
        if errors[0] is not None:
            raise errors[0]

    def extend_soon(
        self, place: int, origin: Origin, messages: Iterable[Message], done: Done
    ) -> None:
        """As `extend`, together with other messages; call `done` as soon as none can be lost.

        Args:
            place: see `place_of`; a sender knows it.
            origin: the sender.
            messages: what it sent.
            done: is called with the error, or with None.
        """
        pending, can_fail = self._pending, self._store.lasts
        pending.append((place, origin, messages, done if can_fail else None))
        is_first, self._in_turn = not self._in_turn, True
        if is_first:
            self._store.soon(self._end_turn)
        if not can_fail:
            done(None)
        elif is_first or len(pending) >= _TOGETHER:
            # The first one need not wait while busy connections have their turns.
            self.flush()

    def behind_pending(self, write: Callable[[], object]) -> None:
        """Call a function when the messages that wait are kept, or failed; now if none can fail.

        So an answer does not overtake the acknowledgements that a sender waits for.
        """
        pending = self._pending
        if not (pending and self._store.lasts):
            write()
            return
        pending.append((0, _NOBODY, (), lambda _: write()))
        if len(pending) >= _TOGETHER:
            self.flush()

    def _end_turn(self) -> None:
        self._in_turn = False
        self.flush()

    def flush(self) -> None:
        """Stamp the messages that wait, and keep them, together."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        batches, end, ends, now = [], self._end, self._ends.copy(), self._clock.now()
        for place, origin, messages, _ in pending:
            if kept := tuple(messages):
                memory = memory_of(kept)
                batches.append(EventBatch(place, ends[place], now, origin, kept, end, memory))
                ends[place] += len(kept)
                end += len(kept)
        error = None
        if batches:
            entry = LogEntry(self._end, batches, ends)
            try:
                self._store.append(end - 1, entry, oldest=self._begin)
            except ServiceUnavailable as failure:
                error = failure
            else:
                self._keep(batches, end, ends)
        for _, _, _, done in pending:
            if done is not None:
                done(error)

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
        if not self._end:
            return
        # In the place of the last entry, so that the next one has a number of its own.
        last = self._end - 1
        self._store.append(last, LogEntry(self._end, (), self._ends), oldest=last)
        self._drop(len(self._batches))
        self._size = 0

    def entries(self) -> Iterator[tuple[int, LogEntry]]:
        """Return the events as a store has them: entries, each with its number."""
        self.flush()
        ends = [partition.begin for partition in self.partitions]
        numbers = range(self._batches.begin, self._batches.end)
        for start in range(numbers.start, numbers.stop, _ENTRY):
            some = [self._batches[each] for each in numbers[start - numbers.start :][:_ENTRY]]
            for batch in some:
                ends[batch.partition] += len(batch.messages)
            last = some[-1].number + len(some[-1].messages) - 1
            yield last, LogEntry(some[0].number, some, ends)
        if self._end and not numbers:
            yield self._end - 1, LogEntry(self._end, (), ends)

    def _keep(self, batches: Sequence[EventBatch], end: int, ends: list[int]) -> None:
        """Keep events that the store has, and notify their readers.

        Args:
            batches: the events, which end at:
            end: the number of the next event.
            ends: the next sequence number of each partition.
        """
        self._end, self._ends = end, ends
        for batch in batches:
            self._batches.append(batch)
            self.partitions[batch.partition].batches.append(batch)
            self._size += batch.memory
        now = batches[-1].enqueued
        count = end - self._begin - _SPARE
        if count > self._max_events or self._size > self._max_size or now >= self._first_expiry:
            self.drop_old(now)
        self._appended.send()
        for batch in batches:
            if listeners := self.partitions[batch.partition].listeners:
                for listener in tuple(listeners):
                    listener()

    def _load(self) -> None:
        """Take the events that an earlier run has left."""
        for entry in self._store.entries(LogEntry):
            end, batches = entry.number, []
            if not self._batches:
                self._begin = end
            for batch in entry.batches:
                memory = memory_of(batch.messages)
                batches.append(replace(batch, number=end, memory=memory))
                end += len(batch.messages)
            self._end, self._ends = end, list(entry.ends)
            if batches:
                self._keep(batches, end, self._ends)
        self.drop_old()

    def drop_old(self, now: datetime | None = None) -> None:
        """Drop the events that are too many, too large or too old."""
        now = now or self._clock.now()
        self.flush()
        excess, too_large = self._end - self._begin - self._max_events, self._size - self._max_size
        if excess <= 0 and too_large <= 0 and now < self._first_expiry:
            return
        oldest, batches = now - self._retention, self._batches
        count = gone = 0
        for batch in batches:
            messages = batch.messages
            if not (
                batch.enqueued <= oldest
                or excess >= len(messages)
                or too_large > batch.memory - messages[-1].memory
            ):
                # Its last message can stay.
                while excess > gone or too_large > 0:
                    too_large -= messages[gone].memory
                    gone += 1
                break
            count += 1
            excess -= len(messages)
            too_large -= batch.memory
        self._size = too_large + self._max_size
        self._drop(count, gone)
        self._first_expiry = (batches.first.enqueued if batches else now) + self._retention

    def _drop(self, count: int, events: int = 0) -> None:
        """Drop the oldest batches, and some events of the next one."""
        dropped = Counter(batch.partition for batch in self._batches.drop(count))
        for place, number in dropped.items():  # a partition has them in the same order
            self.partitions[place].drop(number)
        if events:
            first = self._batches.first
            self._batches.first = rest = first.without(events)
            self.partitions[first.partition].batches.first = rest
        self._begin = self._batches.first.number if self._batches else self._end

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
        batches = self._batches if partition is None else partition.batches
        found = events_from(batches, start, NUMBER, self.names)
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


def _start(store: Store, clock: Clock, partitions: int) -> LogStart:
    """Return how the log of a store began; it begins now if the store has none.

    The number of partitions of a hub is constant (IoT Hub docs: scaling).
    """
    for start in store.scan(LogStart):
        return start
    start = LogStart(clock.now(), partitions)
    store.commit(put=(start,))
    return start
