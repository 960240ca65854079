"""Feedback on cloud-to-device messages: one queue for the hub, which services read.

It holds batches of records. A service receives a batch under a lock, and completes or abandons it.
The rules are those of IoT Hub docs: cloud-to-device messages, message feedback.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import limits
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Key
from emulator.hub.core.times import iso
from emulator.hub.messages import locks
from emulator.hub.messages.commands import Outcome, Status
from emulator.hub.messages.locks import Queued

# "Success" and "Message rejected" were seen on a real hub; the others follow them.
_DESCRIPTIONS = {
    Status.SUCCESS: "Success",
    Status.EXPIRED: "Message expired",
    Status.DELIVERY_COUNT_EXCEEDED: "Message delivery count exceeded",
    Status.REJECTED: "Message rejected",
    Status.PURGED: "Message purged",
}


FEEDBACK: Key = ("feedback",)

CONTENT_TYPE = "application/vnd.microsoft.iothub.feedback.json"
"""Of a batch, over AMQP and HTTPS. C# throws on another one (its source)."""


class Batch(Queued, frozen=True, kw_only=True):
    """One feedback message: its body is the JSON array of its records."""

    records: tuple[JsonObject, ...]


class FeedbackQueue(Struct, frozen=True):
    """The batches that no service has completed yet, in sequence order."""

    batches: tuple[Batch, ...] = ()
    next_sequence_number: int = 1

    @property
    def key(self) -> Key:
        """See `Record.key`: a hub has one such queue."""
        return FEEDBACK


def record(outcome: Outcome, generation_id: str) -> JsonObject:
    """Write an outcome as a record of feedback.

    Returns:
        `{"originalMessageId", "enqueuedTimeUtc", "statusCode", "description", "deviceId",
        "deviceGenerationId"}`
    """
    return {
        "originalMessageId": outcome.message_id,
        "enqueuedTimeUtc": iso(outcome.time),
        "statusCode": outcome.status.value,
        "description": _DESCRIPTIONS[outcome.status],
        "deviceId": outcome.device_id,
        "deviceGenerationId": generation_id,
    }


def add(queue: FeedbackQueue, records: Sequence[JsonObject], now: datetime) -> FeedbackQueue:
    """Queue records.

    Records join the last batch while it is open: for 15 seconds from its first record, up to 64
    records, and until a service has received it. A real hub sends only closed batches; here a
    service receives the open one too.
    """
    queue = expire(queue, now)
    batches, number = queue.batches, queue.next_sequence_number
    if batches and _is_open(batches[-1], now):
        *earlier, last = batches
        room = limits.FEEDBACK_BATCH_RECORDS - len(last.records)
        batches = (*earlier, replace(last, records=(*last.records, *records[:room])))
        records = records[room:]
    expires = now + timedelta(seconds=limits.FEEDBACK_TIME_TO_LIVE)
    for start in range(0, len(records), limits.FEEDBACK_BATCH_RECORDS):
        chunk = tuple(records[start : start + limits.FEEDBACK_BATCH_RECORDS])
        batch = Batch(sequence_number=number, enqueued=now, expires=expires, records=chunk)
        batches, number = (*batches, batch), number + 1
    return FeedbackQueue(batches[-limits.FEEDBACK_BATCHES :], number)


def receive(queue: FeedbackQueue, now: datetime) -> tuple[FeedbackQueue, Batch | None]:
    """Lock the first batch that waits, and return it with the new queue; None if no batch waits."""
    queue = expire(queue, now)
    batches, batch = locks.lend(queue.batches, now + timedelta(seconds=limits.FEEDBACK_LOCK))
    return queue if batch is None else replace(queue, batches=batches), batch


def complete(queue: FeedbackQueue, token: str, now: datetime) -> FeedbackQueue:
    """Delete a batch that a service has read.

    Raises:
        DeviceMessageLockLost: no batch has this lock.
    """
    queue = expire(queue, now)
    batches, _ = locks.end(queue.batches, token)
    return replace(queue, batches=batches)


def abandon(queue: FeedbackQueue, token: str, now: datetime) -> FeedbackQueue:
    """Return a batch to the queue, which counts as a delivery; after the tenth it is deleted.

    Raises:
        DeviceMessageLockLost: no batch has this lock.
    """
    queue = expire(queue, now)
    batches, _ = locks.abandon(queue.batches, token, limits.FEEDBACK_DELIVERIES)
    return expire(replace(queue, batches=batches), now)


def discard(queue: FeedbackQueue, device_id: str, now: datetime) -> FeedbackQueue:
    """Delete the records of a deleted device, except those of a locked batch."""
    queue = expire(queue, now)
    batches = []
    for batch in queue.batches:
        others = tuple(each for each in batch.records if each["deviceId"] != device_id)
        batches.append(batch if batch.lock else replace(batch, records=others))
    kept = tuple(batch for batch in batches if batch.records)
    return queue if kept == queue.batches else replace(queue, batches=kept)


def expire(queue: FeedbackQueue, now: datetime) -> FeedbackQueue:
    """Remove the locks that have lapsed, and the batches that have expired."""
    batches, _ = locks.settle(queue.batches, now)
    return queue if batches is queue.batches else replace(queue, batches=batches)


def _is_open(batch: Batch, now: datetime) -> bool:
    return (
        batch.lock is None
        and not batch.handed_out
        and now < batch.enqueued + timedelta(seconds=limits.FEEDBACK_BATCH_WAIT)
    )
