"""Batches: events of one origin that came together, as the event log and its store have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core.tail import Tail
from emulator.hub.messages.event import Event, Origin, PartitionName
from emulator.hub.messages.message import OBJECTS_BYTES, Message


class EventBatch(Struct, frozen=True, array_like=True, gc=False):
    """Events of one origin that came at once; an event is made when it is read.

    Args:
        partition: the number of their partition.
        sequence_number: that of the first event.
        number: that of the first event in the log.
        memory: the bytes of memory that its messages take.
    """

    partition: int
    sequence_number: int
    enqueued: datetime
    origin: Origin
    messages: tuple[Message, ...]
    # These two are in no file of an earlier version.
    number: int = 0
    memory: int = 0

    def event(self, place: int, partition: PartitionName) -> Event:
        """Return the event at a place in the batch."""
        return Event(
            self.number + place,
            partition,
            self.sequence_number + place,
            self.enqueued,
            self.origin,
            self.messages[place],
        )

    def without(self, count: int) -> EventBatch:
        """Return the batch without its first events."""
        return replace(
            self,
            sequence_number=self.sequence_number + count,
            messages=self.messages[count:],
            number=self.number + count,
            memory=memory_of(self.messages[count:]),
        )


def memory_of(messages: Iterable[Message]) -> int:
    """Return the bytes of memory that messages take."""
    total = 0
    for each in messages:
        if each.system or each.properties:
            total += each.memory
        else:  # the same, without a call for each of most messages
            total += OBJECTS_BYTES + len(each.body)
    return total


# How the numbers of a batch begin: in the log, and in its partition.
NUMBER: Callable[[EventBatch], int] = attrgetter("number")
SEQUENCE_NUMBER: Callable[[EventBatch], int] = attrgetter("sequence_number")


def events_from(
    batches: Tail[EventBatch],
    start: int,
    first: Callable[[EventBatch], int],
    names: Sequence[PartitionName],
) -> Iterator[Event]:
    """Return the events in some batches from a number on, by `first`."""
    for each in range(max(batches.find(start, first), batches.begin), batches.end):
        batch = batches[each]
        for place in range(max(start - first(batch), 0), len(batch.messages)):
            yield batch.event(place, names[batch.partition])


class LogEntry(Struct, frozen=True):
    """Events that were stored together.

    Args:
        number: the number of the first event.
        ends: the next sequence number of each partition, behind these events.
    """

    number: int
    batches: Sequence[EventBatch]
    ends: Sequence[int]
