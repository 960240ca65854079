"""The queue of a device's cloud-to-device messages: checks, the life cycle, the outcomes."""

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

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceMaximumQueueDepthExceeded,
    DeviceMessageLockLost,
    InvalidMessageExpiryTime,
    MessageTooLarge,
)
from emulator.hub.core.times import iso
from emulator.hub.messages import commands
from emulator.hub.messages.commands import Ack, Change, Command, CommandQueue, Outcome, Status
from emulator.hub.messages.message import Message

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
EMPTY = CommandQueue("device")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def message(
    message_id: str = "m", *, ack: str = "full", expires: datetime | None = None
) -> Message:
    system = {"message-id": message_id}
    if expires is not None:
        system["absolute-expiry-time"] = iso(expires)
    return Message(b"body", system, {"iothub-ack": ack})


def queue_of(*messages: str | Message, **options: Any) -> CommandQueue:
    """Return a queue of messages; a text is the id of one with these options."""
    queue = EMPTY
    for each in messages:
        sent = message(each, **options) if isinstance(each, str) else each
        queue = commands.send(queue, sent, NOW).queue
    return queue


def name(command: Command) -> str:
    return command.message.system["message-id"]


def names(queue: CommandQueue) -> list[str]:
    return [name(command) for command in queue.commands]


def tokens(queue: CommandQueue) -> list[str]:
    return [command.lock.token for command in queue.commands if command.lock is not None]


def receive(queue: CommandQueue, now: datetime = NOW) -> tuple[CommandQueue, Command, str]:
    """Receive a message that must be there; return its token too."""
    change = commands.receive(queue, now, limits.C2D_LOCK)
    assert change.command is not None
    assert change.command.lock is not None
    return change.queue, change.command, change.command.lock.token


def ends(change: Change) -> list[tuple[str | None, str, datetime]]:
    return [(outcome.message_id, outcome.status.value, outcome.time) for outcome in change.outcomes]


# --- checks


def test_a_message_is_queued_unchanged() -> None:
    sent = Message(b"\x00body", {"to": "/devices/d/messages/devicebound"}, {"a": None, "b": ""})
    (command,) = queue_of(sent).commands
    assert command == Command(
        sequence_number=1, message=sent, enqueued=NOW, expires=after(3600), ack=Ack.NONE
    )


LIMIT = 64 * 1024
LIFE = 2 * 24 * 3600


def expiry(text: str) -> Message:
    return Message(b"", {"absolute-expiry-time": text})


@pytest.mark.parametrize(
    "accepted",
    [
        Message(b"x" * LIMIT),
        Message(b"x" * (LIMIT - 8), {"to": "é"}, {"name": "é"}),
        Message(b"", {"message-id": "m" * 128, "correlation-id": "-:.+%_#*?!(),=@;$'"}),
        Message(b"", {"message-id": ""}),
        Message(b"", {}, {string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~": "a string/é"}),
        *(Message(b"", {}, {"iothub-ack": ack.value}) for ack in Ack),
        *(message(expires=after(seconds)) for seconds in (0.001, LIFE)),
        *(expiry(f"2026-01-31T15:00:00{fraction}") for fraction in ("", ".1234567Z")),
    ],
)
def test_a_message_within_the_limits_is_accepted(accepted: Message) -> None:
    assert queue_of(accepted).commands[0].message is accepted


BAD_IDS = [{"message-id": bad} for bad in ("m" * 129, "a b", "a\n", "é")]
BAD_NAMES = ["", *(f"a{bad}" for bad in (" ", "/", "é", "(", "\n", '"', "="))]
BAD_TIMES = ("", "0", "soon", "2026-02-30T00:00:00Z", "2026-01-31T15:00:00+01:00")


@pytest.mark.parametrize(
    ("refused", "error", "text"),
    [
        (Message(b"x" * (LIMIT + 1)), MessageTooLarge, "is 65537 bytes; 65536 are allowed"),
        (Message(b"x" * LIMIT, {"to": "d"}), MessageTooLarge, "is 65537 bytes"),
        (Message(b"x" * LIMIT, {}, {"n": None}), MessageTooLarge, "is 65537 bytes"),
        *((Message(b"", ids), ArgumentInvalid, "message-id is not valid") for ids in BAD_IDS),
        (Message(b"", {"correlation-id": "a/b"}), ArgumentInvalid, "The correlation-id is not"),
        *((Message(b"", {}, {bad: "b"}), ArgumentInvalid, "property name '") for bad in BAD_NAMES),
        (Message(b"", {"to": "a\tb"}), ArgumentInvalid, "control character"),
        (Message(b"", {}, {"a": "b\x7f"}), ArgumentInvalid, "control character"),
        (message(ack="Full"), ArgumentInvalid, r"iothub-ack \(Full\) must be none, positive"),
        (Message(b"", {}, {"iothub-ack": None}), ArgumentInvalid, "iothub-ack"),
        (message(expires=NOW), InvalidMessageExpiryTime, "would expire at 2026-01-31T14:46:08.12Z"),
        (message(expires=after(-3600)), InvalidMessageExpiryTime, "in the future"),
        (message(expires=after(LIFE + 0.001)), InvalidMessageExpiryTime, "48 hours"),
        *((expiry(bad), ArgumentInvalid, "is not a UTC time") for bad in BAD_TIMES),
    ],
)
def test_an_invalid_message_is_refused(refused: Message, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        queue_of(refused)


def test_a_message_expires_at_its_own_time_or_after_an_hour() -> None:
    queue = queue_of(
        "default", message("own", expires=after(90)), expiry("2026-01-31T15:00:00.12345678Z")
    )
    assert [iso(command.expires) for command in queue.commands] == [
        *(iso(after(3600)), iso(after(90)), "2026-01-31T15:00:00.123456Z")
    ]


def test_a_full_queue_accepts_no_message_until_one_ends_or_expires() -> None:
    full = queue_of(*(f"m{number}" for number in range(49)), message("last", expires=after(30)))
    queue, _, token = receive(full)  # a message that the device holds is pending too
    with pytest.raises(DeviceMaximumQueueDepthExceeded):
        commands.send(queue, message("another"), NOW)
    ended = commands.complete(queue, token, NOW).queue
    assert names(commands.send(ended, message("another"), NOW).queue)[-1] == "another"
    change = commands.send(queue, message("another"), after(30))
    assert len(change.queue.commands) == 50
    assert ends(change) == [("last", "Expired", after(30))]


# --- the life cycle


def test_messages_are_received_in_order_and_each_once() -> None:
    queue, first, first_token = receive(queue_of("a", "b"))
    queue, second, second_token = receive(queue)
    assert (name(first), name(second)) == ("a", "b")
    assert queue.commands == (first, second)
    assert first.lock is not None
    assert first.lock.until == after(60)
    assert uuid.UUID(first_token) != uuid.UUID(second_token)
    assert commands.receive(queue, after(59), limits.C2D_LOCK).command is None


@pytest.mark.parametrize(("seconds", "until"), [(5, after(5)), (None, after(3600))])
def test_a_lock_lasts_as_long_as_the_receiver_asks(seconds: float | None, until: datetime) -> None:
    command = commands.receive(queue_of("a"), NOW, seconds).command
    assert command is not None
    assert command.lock is not None
    assert command.lock.until == until


# Ways in which a message comes back to the queue, at a time: each takes the queue and the token.
Return = Callable[[CommandQueue, str, datetime], Change]
RETURNS: dict[str, Return] = {
    "abandoned": commands.abandon,
    "connection lost": lambda queue, token, now: commands.release(queue, [token], now),
    "lock lapsed": lambda queue, token, now: commands.expire(queue, after(60)),
}


@pytest.mark.parametrize("way", RETURNS)
def test_a_returned_message_is_in_its_old_place(way: str) -> None:
    queue, command, token = receive(queue_of("a", "b", "c"))
    assert (command.handed_out, command.delivery_count) == (False, 0)
    queue = RETURNS[way](queue, token, NOW).queue
    assert names(queue) == ["a", "b", "c"]
    with pytest.raises(DeviceMessageLockLost):
        commands.complete(queue, token, NOW)
    _, again, new_token = receive(queue)
    count = 1 if way == "abandoned" else 0
    assert (name(again), again.handed_out, again.delivery_count) == ("a", True, count)
    assert new_token != token
    assert [each.handed_out for each in queue.commands] == [True, False, False]


@pytest.mark.parametrize("way", [*RETURNS, "lock lapsed, and the next message received"])
def test_a_message_that_returns_after_its_expiry_ends(way: str) -> None:
    queue, _, token = receive(queue_of("a", expires=after(30)))
    if way in RETURNS:
        change = RETURNS[way](queue, token, after(45))
    else:
        change = commands.receive(queue, after(60), limits.C2D_LOCK)
    assert (change.queue.commands, change.command) == ((), None)
    assert ends(change) == [("a", "Expired", after(30))]


@pytest.mark.parametrize("settle", [commands.complete, commands.reject, commands.abandon])
def test_a_lock_that_lapsed_or_ended_or_never_existed_is_lost(settle: Any) -> None:
    queue, _, token = receive(queue_of("a"))
    assert settle(queue, token, after(59.999)).queue != queue
    for lost_queue, lost_token, now in [
        (queue, token, after(60)),
        (queue, str(uuid.uuid4()), NOW),
        (commands.complete(queue, token, NOW).queue, token, NOW),
        (commands.purge(queue, NOW).queue, token, NOW),
    ]:
        with pytest.raises(DeviceMessageLockLost):
            settle(lost_queue, lost_token, now)


def test_a_lost_connection_returns_all_its_messages() -> None:
    queue, _, _ = receive(queue_of("a", "b", "c"))
    queue, _, _ = receive(queue)
    queue = commands.release(queue, tokens(queue), NOW).queue
    assert [command.handed_out for command in queue.commands] == [True, True, False]
    assert (name(receive(queue)[1]), names(queue)) == ("a", ["a", "b", "c"])


def test_the_tenth_abandon_ends_a_message() -> None:
    queue = queue_of("a", "b")
    for count in range(9):
        queue, command, token = receive(queue)
        assert (name(command), command.delivery_count) == ("a", count)
        change = commands.abandon(queue, token, NOW)
        queue = change.queue
        assert change.outcomes == ()
    queue, _, token = receive(queue)
    change = commands.abandon(queue, token, after(1))
    assert names(change.queue) == ["b"]
    assert ends(change) == [("a", "DeliveryCountExceeded", after(1))]


def test_a_lapsed_lock_is_not_counted_as_a_delivery() -> None:
    queue = queue_of("a")
    for minute in range(59):
        queue, command, _ = receive(queue, after(60 * minute))
    assert (command.delivery_count, names(queue)) == (0, ["a"])


@pytest.mark.parametrize("due", [30, 45, 60])
def test_an_expired_message_is_not_received(due: int) -> None:
    queue = queue_of(message("a", expires=after(30)), "b")
    assert (queue.pending(after(29)), queue.pending(after(due))) == (2, 1)
    change = commands.receive(queue, after(due), limits.C2D_LOCK)
    assert change.command is not None
    assert (name(change.command), ends(change)) == ("b", [("a", "Expired", after(30))])
    assert commands.expire(change.queue, after(due)).outcomes == ()  # it ends once


def test_a_lock_outlives_the_expiry() -> None:
    queue, _, token = receive(queue_of("a", expires=after(30)))
    assert commands.expire(queue, after(59)) == Change(queue, ())
    assert queue.pending(after(59)) == 1
    assert ends(commands.complete(queue, token, after(59))) == [("a", "Success", after(59))]


def test_a_purge_ends_pending_and_locked_messages() -> None:
    queue, _, _ = receive(queue_of("locked", message("expired", expires=after(30)), "waiting"))
    assert queue.pending(after(31)) == 2
    change = commands.purge(queue, after(31))
    assert change.queue.commands == ()
    assert ends(change) == [
        ("expired", "Expired", after(30)),
        ("locked", "Purged", after(31)),
        ("waiting", "Purged", after(31)),
    ]
    following = commands.send(change.queue, message(), after(31)).queue.commands[0]
    assert following.sequence_number == 4  # a number is used once


# --- outcomes


def abandon_ten_times(queue: CommandQueue, token: str) -> Change:
    for _ in range(9):
        queue, _, token = receive(commands.abandon(queue, token, NOW).queue)
    return commands.abandon(queue, token, NOW)


OUTCOMES: dict[Status, Callable[[CommandQueue, str], Change]] = {
    Status.SUCCESS: lambda queue, token: commands.complete(queue, token, NOW),
    Status.REJECTED: lambda queue, token: commands.reject(queue, token, NOW),
    Status.EXPIRED: lambda queue, token: commands.expire(queue, after(3600)),
    Status.PURGED: lambda queue, token: commands.purge(queue, NOW),
    Status.DELIVERY_COUNT_EXCEEDED: abandon_ten_times,
}
WANTED = {
    "none": set[Status](),
    "positive": {Status.SUCCESS},
    "negative": {*Status} - {Status.SUCCESS},
    "full": {*Status},
}


@pytest.mark.parametrize("ack", WANTED)
@pytest.mark.parametrize("status", Status)
def test_every_message_has_an_outcome_and_its_sender_wants_some(status: Status, ack: str) -> None:
    queue, _, token = receive(queue_of("m", ack=ack))
    change = OUTCOMES[status](queue, token)
    assert change.queue.commands == ()
    (outcome,) = change.outcomes
    assert outcome[:3] == ("m", status, "device")
    assert outcome.wanted is (status in WANTED[ack])


def test_a_message_without_an_id_has_an_outcome_without_one() -> None:
    queue = queue_of(Message(b"", {}, {"iothub-ack": "full"}))
    assert commands.purge(queue, NOW).outcomes == (
        Outcome(None, Status.PURGED, "device", NOW, Ack.FULL),
    )


# --- any history, beside a naive model


@dataclass
class Sent:
    """What the model knows of a message."""

    name: str
    ack: str
    expires: datetime
    token: str | None = None
    locked_until: datetime = NOW
    returns: int = 0
    abandons: int = 0
    end: Status | None = None


class History(RuleBasedStateMachine):
    """A queue with a moving clock, beside a list of all messages that were ever sent."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.now = EMPTY, NOW
        self.sent: list[Sent] = []
        self.tokens: list[str] = [str(uuid.uuid4())]
        self.expected: list[tuple[str, Status, bool]] = []  # outcomes of the present operation
        self.ended: list[str] = []

    def living(self) -> list[Sent]:
        return [row for row in self.sent if row.end is None]

    def finish(self, row: Sent, end: Status) -> None:
        row.end, row.token = end, None
        self.expected.append((row.name, end, end in WANTED[row.ack]))

    def give_back(self, row: Sent) -> None:
        row.token, row.returns = None, row.returns + 1

    def settle(self) -> None:
        for row in self.living():
            if row.token is not None and row.locked_until <= self.now:
                self.give_back(row)
            if row.token is None and row.expires <= self.now:
                self.finish(row, Status.EXPIRED)

    def apply(self, change: Change) -> None:
        """Take the result of an operation, after the model has done the same."""
        self.settle()
        self.queue = change.queue
        found = [(o.message_id, o.status, o.wanted) for o in change.outcomes]
        assert sorted(found) == sorted(self.expected)
        self.ended += [outcome[0] for outcome in self.expected]
        self.expected = []
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
                change = commands.send(self.queue, sent, self.now)
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
        change = commands.receive(self.queue, self.now, seconds)
        assert (change.command is not None) == bool(waiting)
        if change.command is not None:
            row = waiting[0]
            assert name(change.command) == row.name
            assert change.command.lock is not None
            row.token = change.command.lock.token
            row.locked_until = self.now + timedelta(seconds=seconds)
            assert row.token not in self.tokens
            self.tokens.append(row.token)
        self.apply(change)

    def abandoned(self, row: Sent, change: Change) -> None:
        self.give_back(row)
        row.abandons += 1
        if row.abandons == 10:
            self.finish(row, Status.DELIVERY_COUNT_EXCEEDED)
        self.apply(change)

    @rule(
        settle=st.sampled_from([commands.complete, commands.reject, *[commands.abandon] * 2]),
        data=st.data(),
    )
    def answer(self, settle: Any, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.tokens[::-1]))
        locked = [r for r in self.living() if r.token == token and r.locked_until > self.now]
        try:
            change = settle(self.queue, token, self.now)
        except DeviceMessageLockLost:
            assert not locked
            return
        (row,) = locked
        if settle is commands.abandon:
            self.abandoned(row, change)
            return
        self.finish(row, Status.SUCCESS if settle is commands.complete else Status.REJECTED)
        self.apply(change)

    @rule()
    def abandon_the_next_for_good(self) -> None:
        """Without this rule no history is long enough for ten abandons."""
        self.receive(60)
        for row in [row for row in self.living() if row.token == self.tokens[-1]]:
            for _ in range(10):
                if row.end is None:
                    self.abandoned(row, commands.abandon(self.queue, self.tokens[-1], self.now))
                if row.end is None:
                    self.receive(60)

    @rule()
    def lose_the_connection(self) -> None:
        for row in self.living():
            if row.token is not None:
                self.give_back(row)
        self.apply(commands.release(self.queue, tokens(self.queue), self.now))

    @rule()
    def purge(self) -> None:
        self.settle()
        assert self.queue.pending(self.now) == len(self.living())
        for row in self.living():
            self.finish(row, Status.PURGED)
        self.apply(commands.purge(self.queue, self.now))

    @rule()
    def expire(self) -> None:
        self.apply(commands.expire(self.queue, self.now))

    @invariant()
    def each_message_is_in_the_queue_or_has_ended_once(self) -> None:
        there = names(self.queue)
        assert len(there) <= 50
        assert len(set(there)) == len(there)
        assert len(set(self.ended)) == len(self.ended)
        ended = {row.name for row in self.sent if row.end is not None}
        # A model that has settled may know of an end that the queue was not asked for yet.
        assert set(there) | ended == {row.name for row in self.sent}
        numbers = [command.sequence_number for command in self.queue.commands]
        assert numbers == sorted(numbers)


TestHistory = History.TestCase
TestHistory.settings = settings(stateful_step_count=30)
