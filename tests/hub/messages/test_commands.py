"""A device's queue of cloud-to-device messages: what is let in, the life cycle, the outcomes."""

from __future__ import annotations

import itertools
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceMaximumQueueDepthExceeded,
    DeviceMessageLockLost,
    InvalidMessageExpiryTime,
    MessageTooLarge,
)
from emulator.hub.core.times import iso
from emulator.hub.messages import commands as c2d
from emulator.hub.messages.commands import Ack, Change, Command, CommandQueue, Status
from emulator.hub.messages.message import Message

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
EMPTY = CommandQueue("device")


def held(queue: CommandQueue) -> list[str]:
    """The tokens of all its locks."""
    return [command.lock.token for command in queue.commands if command.lock is not None]


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def message(
    message_id: str = "m", *, ack: str = "full", expires: datetime | None = None
) -> Message:
    system = {"message-id": message_id}
    if expires is not None:
        system["absolute-expiry-time"] = iso(expires)
    return Message(b"body", system, {"iothub-ack": ack})


def queue_of(*message_ids: str, **options: Any) -> CommandQueue:
    queue = EMPTY
    for message_id in message_ids:
        queue = c2d.send(queue, message(message_id, **options), NOW).queue
    return queue


def name(command: Command) -> str:
    return command.message.system["message-id"]


def names(queue: CommandQueue) -> list[str]:
    return [name(command) for command in queue.commands]


def hand_out(queue: CommandQueue, now: datetime = NOW) -> tuple[CommandQueue, Command, str]:
    """Receive a message that must be there; gives its token as well."""
    change = c2d.receive(queue, now)
    assert change.command is not None
    assert change.command.lock is not None
    return change.queue, change.command, change.command.lock.token


def told(change: Change) -> list[tuple[str | None, str, datetime]]:
    return [(outcome.message_id, outcome.status.value, outcome.time) for outcome in change.outcomes]


# --- what is let in


def test_a_message_is_queued_as_it_is() -> None:
    sent = Message(b"\x00body", {"to": "/devices/d/messages/devicebound"}, {"a": None, "b": ""})
    (command,) = c2d.send(EMPTY, sent, NOW).queue.commands
    assert command == Command(
        sequence_number=1, message=sent, enqueued=NOW, expires=after(3600), ack=Ack.NONE
    )


LIMIT = 64 * 1024


@pytest.mark.parametrize(
    "accepted",
    [
        Message(b"x" * LIMIT),
        Message(b"x" * (LIMIT - 8), {"to": "é"}, {"name": "é"}),
        Message(b"", {"message-id": "m" * 128, "correlation-id": "-:.+%_#*?!(),=@;$'"}),
        Message(b"", {"message-id": ""}),
        Message(b"", {}, {string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~": "a string/é"}),
        *(Message(b"", {}, {"iothub-ack": ack.value}) for ack in Ack),
        message(expires=after(0.001)),
        message(expires=after(2 * 24 * 3600)),
        Message(b"", {"absolute-expiry-time": "2026-01-31T15:00:00"}),
        Message(b"", {"absolute-expiry-time": "2026-01-31T15:00:00.1234567Z"}),
    ],
)
def test_what_is_within_the_limits_is_accepted(accepted: Message) -> None:
    assert c2d.send(EMPTY, accepted, NOW).queue.commands[0].message is accepted


@pytest.mark.parametrize(
    ("refused", "error", "text"),
    [
        (Message(b"x" * (LIMIT + 1)), MessageTooLarge, "is 65537 bytes; 65536 are allowed"),
        (Message(b"x" * LIMIT, {"to": "d"}), MessageTooLarge, "is 65537 bytes"),
        (Message(b"x" * LIMIT, {}, {"n": None}), MessageTooLarge, "is 65537 bytes"),
        (Message(b"", {"message-id": "m" * 129}), ArgumentInvalid, "The message-id is not valid"),
        (Message(b"", {"message-id": "a b"}), ArgumentInvalid, "The message-id is not valid"),
        (Message(b"", {"message-id": "a\n"}), ArgumentInvalid, "The message-id is not valid"),
        (Message(b"", {"message-id": "é"}), ArgumentInvalid, "The message-id is not valid"),
        (Message(b"", {"correlation-id": "a/b"}), ArgumentInvalid, "The correlation-id is not"),
        *(
            (Message(b"", {}, {f"a{bad}": "b"}), ArgumentInvalid, "The property name 'a")
            for bad in (" ", "/", "é", "(", "\n", '"', "=")
        ),
        (Message(b"", {}, {"": "b"}), ArgumentInvalid, "The property name '' is not valid"),
        (message(ack="Full"), ArgumentInvalid, r"iothub-ack \(Full\) must be none, positive"),
        (Message(b"", {}, {"iothub-ack": None}), ArgumentInvalid, "iothub-ack"),
        (message(expires=NOW), InvalidMessageExpiryTime, "would expire at 2026-01-31T14:46:08.12Z"),
        (message(expires=after(-3600)), InvalidMessageExpiryTime, "in the future"),
        (message(expires=after(2 * 24 * 3600 + 0.001)), InvalidMessageExpiryTime, "48 hours"),
        *(
            (Message(b"", {"absolute-expiry-time": time}), ArgumentInvalid, "is not a UTC time")
            for time in ("", "0", "soon", "2026-02-30T00:00:00Z", "2026-01-31T15:00:00+01:00")
        ),
    ],
)
def test_a_bad_message_is_refused(refused: Message, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        c2d.send(EMPTY, refused, NOW)


def test_a_message_expires_when_it_says_so_and_after_an_hour_if_it_says_nothing() -> None:
    queue = c2d.send(queue_of("default"), message("own", expires=after(90)), NOW).queue
    assert [command.expires for command in queue.commands] == [after(3600), after(90)]
    fraction = Message(b"", {"absolute-expiry-time": "2026-01-31T15:00:00.1234567Z"})
    expires = c2d.send(EMPTY, fraction, NOW).queue.commands[0].expires
    assert iso(expires) == "2026-01-31T15:00:00.123456Z"


def test_a_full_queue_takes_no_more_until_a_message_ends_or_expires() -> None:
    full = queue_of(*(f"m{number}" for number in range(49)))
    full = c2d.send(full, message("last", expires=after(30)), NOW).queue
    queue, _, token = hand_out(full)  # what a device holds is pending, too
    with pytest.raises(DeviceMaximumQueueDepthExceeded):
        c2d.send(queue, message("another"), NOW)
    ended = c2d.complete(queue, token, NOW).queue
    assert names(c2d.send(ended, message("another"), NOW).queue)[-1] == "another"
    change = c2d.send(queue, message("another"), after(30))
    assert len(change.queue.commands) == 50
    assert told(change) == [("last", "Expired", after(30))]


# --- the life cycle


def test_messages_are_handed_out_in_order_and_each_to_one_receiver() -> None:
    queue, first, _ = hand_out(queue_of("a", "b"))
    queue, second, _ = hand_out(queue)
    assert (name(first), name(second)) == ("a", "b")
    assert queue.commands == (first, second)
    assert first.lock is not None
    assert second.lock is not None
    assert first.lock.until == after(60)
    assert uuid.UUID(first.lock.token) != uuid.UUID(second.lock.token)
    assert c2d.receive(queue, after(59)).command is None


def test_a_lock_may_be_asked_for_a_time_of_its_own() -> None:
    command = c2d.receive(queue_of("a"), NOW, lock_seconds=5).command
    assert command is not None
    assert command.lock is not None
    assert command.lock.until == after(5)


@pytest.mark.parametrize(
    ("give_back", "count"),
    [
        (lambda queue, token: c2d.abandon(queue, token, NOW).queue, 1),
        (lambda queue, token: c2d.release(queue, [token], NOW).queue, 0),
        (lambda queue, token: c2d.expire(queue, after(60)).queue, 0),
    ],
    ids=["abandoned", "connection lost", "lock lapsed"],
)
def test_a_message_given_back_is_in_its_old_place(
    give_back: Callable[[CommandQueue, str], CommandQueue], count: int
) -> None:
    queue, command, token = hand_out(queue_of("a", "b", "c"))
    assert (command.handed_out, command.delivery_count) == (False, 0)
    queue = give_back(queue, token)
    assert names(queue) == ["a", "b", "c"]
    with pytest.raises(DeviceMessageLockLost):
        c2d.complete(queue, token, NOW)
    _, again, new_token = hand_out(queue)
    assert (name(again), again.handed_out, again.delivery_count) == ("a", True, count)
    assert new_token != token
    assert [c.handed_out for c in queue.commands] == [True, False, False]


SETTLERS = pytest.mark.parametrize("settler", [c2d.complete, c2d.reject, c2d.abandon])


@SETTLERS
def test_a_lock_that_lapsed_or_ended_or_never_was_is_lost(settler: Any) -> None:
    queue, _, token = hand_out(queue_of("a"))
    assert settler(queue, token, after(59.999)).queue != queue
    with pytest.raises(DeviceMessageLockLost):
        settler(queue, token, after(60))
    with pytest.raises(DeviceMessageLockLost):
        settler(queue, str(uuid.uuid4()), NOW)
    with pytest.raises(DeviceMessageLockLost):
        settler(c2d.complete(queue, token, NOW).queue, token, NOW)
    with pytest.raises(DeviceMessageLockLost):
        settler(c2d.purge(queue, NOW).queue, token, NOW)


def test_a_release_gives_every_lock_back() -> None:
    queue, _, _ = hand_out(queue_of("a", "b", "c"))
    queue, _, _ = hand_out(queue)
    queue = c2d.release(queue, held(queue), NOW).queue
    assert [command.handed_out for command in queue.commands] == [True, True, False]
    assert [name(hand_out(queue)[1]), names(queue)] == ["a", ["a", "b", "c"]]


def test_the_tenth_abandon_is_the_last() -> None:
    queue = queue_of("a", "b")
    for count in range(9):
        queue, command, token = hand_out(queue)
        assert (name(command), command.delivery_count) == ("a", count)
        change = c2d.abandon(queue, token, NOW)
        queue = change.queue
        assert change.outcomes == ()
    queue, _, token = hand_out(queue)
    change = c2d.abandon(queue, token, after(1))
    assert names(change.queue) == ["b"]
    assert told(change) == [("a", "DeliveryCountExceeded", after(1))]


def test_a_lock_that_lapses_never_wears_a_message_out() -> None:
    queue, minutes = queue_of("a"), range(59)
    for minute in minutes:
        queue, command, _ = hand_out(queue, after(60 * minute))
    assert (command.delivery_count, names(queue)) == (0, ["a"])


@pytest.mark.parametrize("due", [30, 45, 60])
def test_an_expired_message_is_not_handed_out(due: int) -> None:
    queue = c2d.send(queue_of("a", expires=after(30)), message("b"), NOW).queue
    assert queue.pending(after(29)) == 2
    assert queue.pending(after(due)) == 1
    change = c2d.receive(queue, after(due))
    assert change.command is not None
    assert (name(change.command), told(change)) == ("b", [("a", "Expired", after(30))])
    # Told once only.
    assert told(c2d.expire(change.queue, after(due))) == []


def test_a_lock_outlives_the_expiry() -> None:
    queue, _, token = hand_out(queue_of("a", expires=after(30)))
    assert c2d.expire(queue, after(59)) == Change(queue, ())
    assert queue.pending(after(59)) == 1
    assert told(c2d.complete(queue, token, after(59))) == [("a", "Success", after(59))]


@pytest.mark.parametrize(
    "give_back",
    [
        lambda queue, token: c2d.abandon(queue, token, after(45)),
        lambda queue, token: c2d.release(queue, [token], after(45)),
        lambda queue, token: c2d.expire(queue, after(60)),
        lambda queue, token: c2d.receive(queue, after(60)),
    ],
    ids=["abandoned", "connection lost", "lock lapsed", "lapsed, and the next one asked for"],
)
def test_a_message_given_back_after_its_expiry_is_dead(
    give_back: Callable[[CommandQueue, str], Change],
) -> None:
    queue, _, token = hand_out(queue_of("a", expires=after(30)))
    change = give_back(queue, token)
    assert (change.queue.commands, change.command) == ((), None)
    assert told(change) == [("a", "Expired", after(30))]


def test_a_purge_ends_what_is_pending_and_what_is_held() -> None:
    queue = c2d.send(queue_of("held"), message("expired", expires=after(30)), NOW).queue
    queue = c2d.send(queue, message("waiting"), NOW).queue
    queue, _, _ = hand_out(queue)
    assert queue.pending(after(31)) == 2
    change = c2d.purge(queue, after(31))
    assert change.queue.commands == ()
    assert told(change) == [
        ("expired", "Expired", after(30)),
        ("held", "Purged", after(31)),
        ("waiting", "Purged", after(31)),
    ]
    next_one = c2d.send(change.queue, message(), after(31)).queue.commands[0]
    assert next_one.sequence_number == 4  # numbers are never used again


# --- what the sender hears of

OUTCOMES: dict[str, Callable[[CommandQueue, str], Change]] = {
    "Success": lambda queue, token: c2d.complete(queue, token, NOW),
    "Rejected": lambda queue, token: c2d.reject(queue, token, NOW),
    "Expired": lambda queue, token: c2d.expire(queue, after(3600)),
    "Purged": lambda queue, token: c2d.purge(queue, NOW),
    "DeliveryCountExceeded": lambda queue, token: abandoned_to_death(queue, token),
}


def abandoned_to_death(queue: CommandQueue, token: str) -> Change:
    for _ in range(9):
        queue, _, token = hand_out(c2d.abandon(queue, token, NOW).queue)
    return c2d.abandon(queue, token, NOW)


@pytest.mark.parametrize(
    ("ack", "heard"),
    [
        ("none", set()),
        ("positive", {"Success"}),
        ("negative", {"Rejected", "Expired", "Purged", "DeliveryCountExceeded"}),
        ("full", set(OUTCOMES)),
    ],
)
def test_a_sender_hears_of_the_outcomes_that_it_asked_for(ack: str, heard: set[str]) -> None:
    assert {status.value for status in Status} == set(OUTCOMES)
    for status, happen in OUTCOMES.items():
        queue, _, token = hand_out(queue_of("m", ack=ack))
        change = happen(queue, token)
        assert change.queue.commands == ()
        outcomes = [(o.message_id, o.status.value, o.device_id) for o in change.outcomes]
        assert outcomes == ([("m", status, "device")] if status in heard else [])


def test_a_message_without_an_id_has_an_outcome_without_one() -> None:
    queue = c2d.send(EMPTY, Message(b"", {}, {"iothub-ack": "full"}), NOW).queue
    assert c2d.purge(queue, NOW).outcomes == ((None, Status.PURGED, "device", NOW),)


# --- any history, against a naive model


@dataclass
class Sent:
    """What the model knows of a message: a table row that the rules scribble on."""

    name: str
    ack: str
    expires: datetime
    token: str | None = None
    held_until: datetime = NOW
    returns: int = 0
    abandons: int = 0
    end: str | None = None


WANTED = {
    "none": (),
    "positive": ("Success",),
    "negative": ("Expired", "Rejected", "Purged", "DeliveryCountExceeded"),
    "full": ("Success", "Expired", "Rejected", "Purged", "DeliveryCountExceeded"),
}


class History(RuleBasedStateMachine):
    """A queue with a moving clock, next to a list of everything that was ever sent."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.now = EMPTY, NOW
        self.sent: list[Sent] = []
        self.tokens: list[str] = [str(uuid.uuid4())]
        self.unheard: list[tuple[str, str]] = []  # ended, and not told yet
        self.heard: list[tuple[str, str]] = []

    def living(self) -> list[Sent]:
        return [row for row in self.sent if row.end is None]

    def finish(self, row: Sent, end: str) -> None:
        row.end, row.token = end, None
        if end in WANTED[row.ack]:
            self.unheard.append((row.name, end))

    def give_back(self, row: Sent) -> None:
        row.token, row.returns = None, row.returns + 1

    def settle(self) -> None:
        for row in self.living():
            if row.token is not None and row.held_until <= self.now:
                self.give_back(row)
            if row.token is None and row.expires <= self.now:
                self.finish(row, "Expired")

    def apply(self, change: Change) -> None:
        """Take an operation's result, once the model has done the same."""
        self.settle()
        self.queue = change.queue
        news = [(o.message_id, o.status.value) for o in change.outcomes]
        assert sorted(news) == sorted(self.unheard)
        self.heard += self.unheard
        self.unheard = []
        assert [
            (name(c), c.lock and c.lock.token, c.handed_out, c.delivery_count)
            for c in self.queue.commands
        ] == [(r.name, r.token, r.returns > 0, r.abandons) for r in self.living()]

    @rule(seconds=st.sampled_from([0.5, 29, 31, 60, 600, 3600, 86400]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(
        acks=st.lists(st.sampled_from(list(WANTED)), min_size=1, max_size=4),
        copies=st.sampled_from([1, 1, 1, 20]),
        life=st.sampled_from([None, 20, 45, 90, 172800]),
    )
    def send(self, acks: list[str], copies: int, life: int | None) -> None:
        expires = self.now + timedelta(seconds=life or 3600)
        for ack in itertools.chain.from_iterable([acks] * copies):
            row = Sent(f"m{len(self.sent)}", ack, expires)
            sent = message(row.name, ack=ack, expires=expires if life else None)
            full = self.queue.pending(self.now) == 50
            try:
                change = c2d.send(self.queue, sent, self.now)
            except DeviceMaximumQueueDepthExceeded:
                assert full
                return
            assert not full
            self.settle()
            self.sent.append(row)
            self.apply(change)

    @rule(seconds=st.sampled_from([60, 60, 10]))
    def receive(self, seconds: int) -> None:
        self.settle()
        waiting = [row for row in self.living() if row.token is None]
        change = c2d.receive(self.queue, self.now, seconds)
        assert (change.command is not None) == bool(waiting)
        if change.command is not None:
            row = waiting[0]
            assert name(change.command) == row.name
            assert change.command.lock is not None
            row.token = change.command.lock.token
            row.held_until = self.now + timedelta(seconds=seconds)
            assert row.token not in self.tokens
            self.tokens.append(row.token)
        self.apply(change)

    @rule(
        settler=st.sampled_from([c2d.complete, c2d.reject, c2d.abandon, c2d.abandon]),
        data=st.data(),
    )
    def answer(self, settler: Any, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.tokens[::-1]))
        held = [r for r in self.living() if r.token == token and r.held_until > self.now]
        try:
            change = settler(self.queue, token, self.now)
        except DeviceMessageLockLost:
            assert not held
            return
        (row,) = held
        if settler is not c2d.abandon:
            self.finish(row, "Success" if settler is c2d.complete else "Rejected")
        else:
            self.give_back(row)
            row.abandons += 1
            if row.abandons == 10:
                self.finish(row, "DeliveryCountExceeded")
        self.apply(change)

    @rule()
    def abandon_the_next_for_good(self) -> None:
        """Without it no history is long enough for ten."""
        self.receive(60)
        for row in [row for row in self.living() if row.token == self.tokens[-1]]:
            while row.end is None:
                change = c2d.abandon(self.queue, self.tokens[-1], self.now)
                self.give_back(row)
                row.abandons += 1
                if row.abandons == 10:
                    self.finish(row, "DeliveryCountExceeded")
                self.apply(change)
                if row.end is None:
                    self.receive(60)

    @rule()
    def lose_the_connection(self) -> None:
        for row in self.living():
            if row.token is not None:
                self.give_back(row)
        self.apply(c2d.release(self.queue, held(self.queue), self.now))

    @rule()
    def purge(self) -> None:
        self.settle()
        assert self.queue.pending(self.now) == len(self.living())
        for row in self.living():
            self.finish(row, "Purged")
        self.apply(c2d.purge(self.queue, self.now))

    @rule()
    def expire(self) -> None:
        self.apply(c2d.expire(self.queue, self.now))

    @invariant()
    def each_message_is_there_or_has_ended(self) -> None:
        there = names(self.queue)
        assert len(there) <= 50
        assert len(set(there)) == len(there)
        ended = {row.name for row in self.sent if row.end is not None}
        # A model that has settled may know of an end that the queue hasn't been asked for yet.
        assert set(there) | ended == {row.name for row in self.sent}
        numbers = [command.sequence_number for command in self.queue.commands]
        assert numbers == sorted(numbers)

    @invariant()
    def each_message_has_at_most_one_outcome(self) -> None:
        assert len({told_of for told_of, _ in self.heard}) == len(self.heard)


TestHistory = History.TestCase
# No deadline: a busy machine is no failure.
TestHistory.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
