"""The queue of feedback: records, batches, and the life cycle of a batch."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.errors import DeviceMessageLockLost
from emulator.hub.core.json import JsonObject
from emulator.hub.messages import feedback
from emulator.hub.messages.commands import Ack, Outcome, Status
from emulator.hub.messages.feedback import Batch, FeedbackQueue

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def outcome(message_id: str, status: Status = Status.SUCCESS, device: str = "device") -> Outcome:
    return Outcome(message_id, status, device, NOW, Ack.FULL)


def records(*numbers: int, device: str = "device") -> list[JsonObject]:
    return [feedback.record(outcome(f"m{number}", device=device), "1") for number in numbers]


def sizes(queue: FeedbackQueue) -> list[int]:
    return [len(batch.records) for batch in queue.batches]


def receive(queue: FeedbackQueue, now: datetime = NOW) -> tuple[FeedbackQueue, Batch, str]:
    queue, batch = feedback.receive(queue, now)
    assert batch is not None
    assert batch.lock is not None
    return queue, batch, batch.lock.token


ONE = feedback.add(FeedbackQueue(), records(1), NOW)


@pytest.mark.parametrize(
    ("status", "description"),
    [
        ("Success", "Success"),
        ("Expired", "Message expired"),
        ("DeliveryCountExceeded", "Message delivery count exceeded"),
        ("Rejected", "Message rejected"),
        ("Purged", "Message purged"),
    ],
)
def test_a_record_has_the_members_of_the_docs(status: str, description: str) -> None:
    assert feedback.record(outcome("m", Status(status)), "639054099681200000") == {
        "originalMessageId": "m",
        "enqueuedTimeUtc": "2026-01-31T14:46:08.12Z",
        "statusCode": status,
        "description": description,
        "deviceId": "device",
        "deviceGenerationId": "639054099681200000",
    }


# --- batches


def test_a_batch_has_at_most_64_records() -> None:
    queue = feedback.add(FeedbackQueue(), records(*range(60)), NOW)
    queue = feedback.add(queue, records(*range(60, 200)), after(14.9))
    assert sizes(queue) == [64, 64, 64, 8]
    assert [batch.sequence_number for batch in queue.batches] == [1, 2, 3, 4]
    assert [batch.enqueued for batch in queue.batches] == [NOW, *[after(14.9)] * 3]
    assert [r for batch in queue.batches for r in batch.records] == records(*range(200))


def test_a_batch_closes_after_15_seconds_and_when_it_is_received() -> None:
    assert sizes(feedback.add(ONE, records(2), after(15))) == [1, 1]
    queue, _, token = receive(ONE)
    assert sizes(feedback.add(queue, records(2), NOW)) == [1, 1]
    queue = feedback.abandon(queue, token, NOW)
    assert sizes(feedback.add(queue, records(2), NOW)) == [1, 1]


def test_without_records_there_is_no_batch() -> None:
    assert feedback.add(FeedbackQueue(), [], NOW) == FeedbackQueue()


def test_the_feedback_of_a_deleted_device_is_discarded() -> None:
    queue = feedback.add(ONE, records(2, device="gone"), NOW)
    queue = feedback.add(queue, records(3, device="gone"), after(20))
    assert feedback.discard(queue, "gone", after(20)).batches == ONE.batches
    # A service can still complete the batch that it holds.
    queue, _, token = receive(queue, after(20))
    assert sizes(feedback.discard(queue, "gone", after(80))) == [1]
    queue = feedback.discard(queue, "gone", after(20))
    assert sizes(queue) == [2]
    assert sizes(feedback.complete(queue, token, after(20))) == []


# --- the life cycle


def test_batches_are_received_in_order_and_each_once() -> None:
    queue = feedback.add(ONE, records(2), after(20))
    queue, first, _ = receive(queue, after(20))
    queue, second, _ = receive(queue, after(20))
    assert [first.records, second.records] == [(r,) for r in records(1, 2)]
    assert feedback.receive(queue, after(79))[1] is None
    _, again, _ = receive(queue, after(80))
    assert (again.records, again.handed_out, again.delivery_count) == (first.records, True, 0)


def test_a_completed_batch_is_deleted() -> None:
    queue, _, token = receive(ONE)
    assert feedback.complete(queue, token, after(59)).batches == ()


@pytest.mark.parametrize("settle", [feedback.complete, feedback.abandon])
def test_a_lock_that_lapsed_or_never_existed_is_lost(settle: Any) -> None:
    queue, _, token = receive(ONE)
    with pytest.raises(DeviceMessageLockLost):
        settle(queue, token, after(60))
    with pytest.raises(DeviceMessageLockLost):
        settle(queue, "none", NOW)


def test_the_tenth_abandon_deletes_a_batch() -> None:
    queue = ONE
    for _ in range(9):
        queue, _, token = receive(queue)
        queue = feedback.abandon(queue, token, NOW)
        assert sizes(queue) == [1]
    queue, _, token = receive(queue)
    assert feedback.abandon(queue, token, NOW).batches == ()


def test_a_batch_expires_after_an_hour_unless_a_service_holds_it() -> None:
    assert sizes(feedback.expire(ONE, after(3599))) == [1]
    assert feedback.expire(ONE, after(3600)).batches == ()
    assert feedback.receive(ONE, after(3600))[1] is None
    assert sizes(feedback.add(ONE, records(2), after(3600))) == [1]
    queue, _, token = receive(ONE, after(3590))
    assert sizes(feedback.expire(queue, after(3649))) == [1]
    assert feedback.expire(queue, after(3650)).batches == ()
    assert feedback.abandon(queue, token, after(3649)).batches == ()


STEPS = st.lists(
    st.tuples(st.just("add"), st.integers(1, 150))
    | st.tuples(st.sampled_from(["receive", "receive", "complete", "abandon"]), st.just(0))
    | st.tuples(st.just("wait"), st.sampled_from([5, 15, 60])),
    max_size=40,
)


@given(STEPS)
def test_within_an_hour_every_record_is_settled_once_or_waits(steps: list[Any]) -> None:
    queue, now, added, settled = FeedbackQueue(), NOW, 0, list[JsonObject]()
    held: dict[str, Batch] = {}
    for verb, argument in steps:
        if verb == "wait":
            now += timedelta(seconds=argument)
        elif verb == "add":
            queue = feedback.add(queue, records(*range(added, added + argument)), now)
            added += argument
        elif verb == "receive":
            queue, batch = feedback.receive(queue, now)
            if batch is not None and batch.lock is not None:
                live = [b for b in held.values() if b.lock is not None and b.lock.until > now]
                assert batch.sequence_number not in {b.sequence_number for b in live}
                held[batch.lock.token] = batch
        elif held:
            token, batch = held.popitem()
            try:
                queue = getattr(feedback, verb)(queue, token, now)
            except DeviceMessageLockLost:
                assert batch.lock is not None
                assert batch.lock.until <= now
            else:
                if verb == "complete" or batch.delivery_count == 9:
                    settled += batch.records
        assert all(1 <= size <= 64 for size in sizes(queue))
    there = [r for batch in queue.batches for r in batch.records]
    ids = Counter(r["originalMessageId"] for r in (*there, *settled))
    assert ids == Counter(f"m{number}" for number in range(added))
    numbers = [int(r["originalMessageId"][1:]) for r in there]
    assert numbers == sorted(numbers)
