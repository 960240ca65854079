"""Messages to a peer: credit, windows, frames, and what the peer settles."""

from __future__ import annotations

import time

import pytest

from emulator.amqp.errors import AmqpError
from emulator.amqp.limits import Limits
from emulator.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    Disposition,
    Error,
    Modified,
    Outcome,
    Rejected,
    Released,
    Transfer,
)
from tests.amqp.playbook import RECEIVES, Node, Peer, write


def test_messages_are_sent_with_credit() -> None:
    peer = Peer()
    peer.node.to_send.extend([b"1", b"2", b"3"])
    peer.begin(
        *RECEIVES,
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 2)",
        "<< 0 Transfer(handle=0, delivery_id=0, delivery_tag=bytes((0, 0, 0, 1)), "
        "message_format=0, settled=False, more=False) + b'1'",
        "<< 0 Transfer(delivery_id=1, delivery_tag=bytes((0, 0, 0, 2))) + b'2'",
        ">> 0 Flow(2, 99, 0, 99, 0, 1, 2)",  # the second message was on its way
        "<< 0 Transfer(delivery_id=2) + b'3'",
    )
    assert peer.node.events == ["credit 2", "credit 1"]
    assert peer.outgoing.credit == 0


def test_messages_wait_for_credit_in_order() -> None:
    peer = Peer().begin(*RECEIVES)
    for each in (b"1", b"2", b"3"):
        peer.outgoing.send(each)
    peer.play(
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 2)",
        "<< 0 Transfer() + b'1'",
        "<< 0 Transfer() + b'2'",
    )
    peer.play(">> 0 Flow(3, 99, 0, 99, 0, 2, 0, echo=True)", "<< 0 Flow(available=1)")
    peer.play(">> 0 Flow(3, 99, 0, 99, 0, 2, 2)", "<< 0 Transfer() + b'3'")
    assert peer.node.events == ["credit 1"]


def test_fields_of_a_message() -> None:
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 99, 0, 99, 0, 0, 9)")
    peer.outgoing.send(b"m", b"t" * 32)
    peer.play("<< 0 Transfer(delivery_tag=b't' * 32, settled=False, message_format=0) + b'm'")
    with pytest.raises(ValueError, match="33 bytes"):
        peer.outgoing.send(b"m", b"t" * 33)


@pytest.mark.parametrize(("mode", "settled"), [(0, False), (1, True), (2, False)])
def test_the_peer_asks_for_settled_messages(mode: int, settled: bool) -> None:
    peer = Peer().begin(
        f'>> 0 Attach("l", 0, RECEIVER, {mode}, source=Source("x"))',
        f"<< 0 Attach(snd_settle_mode={mode})",
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 9)",
    )
    peer.outgoing.send(b"m")
    peer.play(f"<< 0 Transfer(settled={settled}) + b'm'")


def test_a_large_message_is_sent_in_frames_that_the_peer_takes() -> None:
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 99, 0, 99, 0, 0, 9)", max_frame_size=512)
    message = bytes(range(256)) * 5
    peer.outgoing.send(message)
    data = peer.connection.data_to_send()
    sizes, found = [], b""
    while data:
        size = int.from_bytes(data[:4], "big")
        sizes.append(size)
        data = data[size:]
    assert len(sizes) == 3
    assert max(sizes) <= 512
    peer.outgoing.send(message)
    for number in range(3):
        _, performative, payload = peer.take()
        assert isinstance(performative, Transfer)
        assert performative.more == (number < 2)
        assert performative.delivery_id == (None if number else 1)
        found += payload
    assert found == message
    peer.outgoing.send(b"")
    peer.play("<< 0 Transfer(delivery_id=2, more=False) + b''")


def test_a_session_window_that_is_closed() -> None:
    peer = Peer()
    peer.begin(*RECEIVES, ">> 0 Flow(1, 2, 0, 9, 0, 0, 9)", window=0, max_frame_size=512)
    assert peer.outgoing.credit == 9
    peer.outgoing.send(bytes(432 * 3))
    peer.outgoing.send(b"next")
    assert peer.outgoing.credit == 0
    peer.play(
        "<< 0 Transfer(more=True) + bytes(432)",
        "<< 0 Transfer(more=True) + bytes(432)",
        ">> 0 Flow(2, 1, 0, 9)",  # a frame is on its way: no room yet
        ">> 0 Flow(3, 1, 0, 9)",
        "<< 0 Transfer(delivery_id=None, more=False) + bytes(432)",
        ">> 0 Flow(4, 2, 0, 9)",
        "<< 0 Transfer(delivery_id=1) + b'next'",
    )
    assert peer.node.events == ["credit 9", "credit 7"]
    assert peer.outgoing.credit == 7


def test_links_take_turns_when_the_window_opens() -> None:
    peer = Peer()
    other = Node()
    peer.begin(*RECEIVES, ">> 0 Flow(1, 0, 0, 9, 0, 0, 9)", window=0)
    first, peer.node = peer.outgoing, other
    peer.play(
        '>> 0 Attach("b", 1, RECEIVER, source=Source("x"))',
        "<< 0 Attach()",
        ">> 0 Flow(1, 0, 0, 9, 1, 0, 9)",
    )
    first.send(b"a1")
    peer.outgoing.send(b"b1")
    first.send(b"a2")
    peer.play(
        ">> 0 Flow(1, 1, 0, 9)",
        "<< 0 Transfer(handle=0) + b'a1'",
        ">> 0 Flow(2, 1, 0, 9)",
        "<< 0 Transfer(handle=1) + b'b1'",
        ">> 0 Flow(3, 9, 0, 9)",
        "<< 0 Transfer(handle=0) + b'a2'",
    )
    assert other.events == ["credit 8"]


@pytest.mark.parametrize("next_incoming_id", [None, 1, 0, 5])
def test_a_window_of_a_peer_that_counts_otherwise(next_incoming_id: int | None) -> None:
    peer = Peer().begin(*RECEIVES, f">> 0 Flow({next_incoming_id}, 9, 0, 9, 0, None, 5)")
    assert peer.outgoing.credit == 5


def test_drain() -> None:
    peer = Peer()
    peer.node.to_send.append(b"1")
    peer.begin(
        *RECEIVES,
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 5, drain=True)",
        "<< 0 Transfer() + b'1'",
        "<< 0 Flow(handle=0, delivery_count=5, link_credit=0, available=0)",
    )
    peer.outgoing.send(b"2")
    peer.play(
        ">> 0 Flow(2, 99, 0, 99, 0, 5, 1, drain=True)",
        "<< 0 Transfer(delivery_id=1) + b'2'",
        "<< 0 Flow(delivery_count=6, link_credit=0)",
        ">> 0 Flow(3, 99, 0, 99, 0, 6, 3)",
    )
    assert peer.outgoing.credit == 3


def test_drain_with_a_closed_window_waits() -> None:
    peer = Peer().begin(*RECEIVES, window=0)
    peer.outgoing.send(b"1")
    peer.play(
        ">> 0 Flow(1, 0, 0, 99, 0, 0, 5, drain=True)",
        ">> 0 Flow(1, 9, 0, 99)",
        "<< 0 Transfer() + b'1'",
        "<< 0 Flow(delivery_count=5, link_credit=0)",
    )


def test_a_sender_that_fails_loses_its_link(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    peer.begin(*RECEIVES)
    peer.node.on_credit = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    peer.play(
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 5)",
        '<< 0 Detach(error=Error("amqp:internal-error", "The credit was not handled"))',
    )
    assert "ZeroDivisionError" in caplog.text


# --- what the peer settles


def _sent(count: int, error: AmqpError | None = None) -> Peer:
    """A peer with messages that it has not settled."""
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 9999, 0, 9999, 0, 0, 9999)")
    peer.connection._limits = Limits(9, 9, 9999, sent_bytes=10**9)

    def on_settled(outcome: Outcome | None) -> None:
        peer.node.events.append(outcome)
        if error is not None:
            raise error

    for _ in range(count):
        peer.outgoing.send(b"m", on_settled=on_settled)
    peer.connection.data_to_send()
    peer.node.events.clear()
    return peer


@pytest.mark.parametrize(
    "outcome",
    [ACCEPTED, Released(), Modified(True), Rejected(Error("a:b")), Rejected(), None],
)
def test_a_message_is_settled(outcome: Outcome | None) -> None:
    peer = _sent(1)
    assert peer.outgoing.unsettled == 1
    settle = write(0, Disposition(RECEIVER, 0, None, True, outcome))
    peer.send(settle + settle)
    peer.expect_nothing()
    assert peer.node.events == [outcome]
    assert peer.outgoing.unsettled == 0


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "ACCEPTED"),
        (AmqpError("a:lost", "Gone"), 'Rejected(Error("a:lost", "Gone"))'),
    ],
)
def test_the_outcome_is_confirmed_to_a_peer_that_waits(error: AmqpError | None, state: str) -> None:
    peer = _sent(1, error)
    peer.play(
        ">> 0 Disposition(RECEIVER, 0, None, False, ACCEPTED)",
        f"<< 0 Disposition(role=SENDER, first=0, last=0, settled=True, state={state})",
        ">> 0 Disposition(RECEIVER, 0, None, True, ACCEPTED)",
    )
    assert peer.node.events == [ACCEPTED]


def test_confirmations_become_one() -> None:
    _sent(3).play(
        ">> 0 Disposition(RECEIVER, 0, 9, False, ACCEPTED)",
        "<< 0 Disposition(role=SENDER, first=0, last=2, settled=True, state=ACCEPTED)",
        "<< 0 Disposition(role=SENDER, first=0, last=9, settled=True, state=ACCEPTED)",
    )


def test_a_range_with_outcomes_that_no_sender_waits_for_is_confirmed() -> None:
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 99, 0, 99, 0, 0, 99)")
    for on_settled in (None, peer.node.on_settled, None):
        peer.outgoing.send(b"m", on_settled=on_settled)
    peer.connection.data_to_send()
    peer.play(
        ">> 0 Disposition(RECEIVER, 0, 2, False, ACCEPTED)",
        "<< 0 Disposition(role=SENDER, first=1, last=1, settled=True, state=ACCEPTED)",
        "<< 0 Disposition(role=SENDER, first=0, last=2, settled=True, state=ACCEPTED)",
    )
    assert peer.node.events[-1] == ACCEPTED


def test_outcomes_that_no_sender_waits_for_are_confirmed() -> None:
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 99, 0, 99, 0, 0, 99)")
    peer.outgoing.send(b"m")
    peer.play(
        "<< 0 Transfer(settled=False) + b'm'",
        ">> 0 Disposition(RECEIVER, 0, None, False, ACCEPTED)",
        "<< 0 Disposition(role=SENDER, first=0, last=0, settled=True, state=ACCEPTED)",
        ">> 0 Disposition(RECEIVER, 0, None, True, ACCEPTED)",
    )


@pytest.mark.parametrize("state", ["None", "Received(0, 5)"])
def test_a_state_that_is_not_an_outcome_is_ignored(state: str) -> None:
    peer = _sent(1)
    peer.play(f">> 0 Disposition(RECEIVER, 0, None, False, {state})")
    assert peer.node.events == []
    assert peer.outgoing.unsettled == 1


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [
        (1, 2, 2), (0, 3, 0), (2, None, 3), (2, 100, 2), (0, 2**32 - 1, 0), (9, 5, 0), (4, 9, 4),
        (2**32 - 5, 1, 2), (3, 2, 0),
    ],
)  # fmt: skip
def test_ranges(first: int, last: int | None, left: int) -> None:
    peer = _sent(4)
    peer.play(f">> 0 Disposition(RECEIVER, {first}, {last}, True, ACCEPTED)")
    assert peer.outgoing.unsettled == left
    assert len(peer.node.events) == 4 - left


@pytest.mark.parametrize("role", ["RECEIVER", "SENDER"])
@pytest.mark.parametrize("state", ["ACCEPTED", "None"])
def test_a_wide_range_costs_nothing(role: str, state: str) -> None:
    peer = _sent(0)
    data = write(0, Disposition(role == "RECEIVER", 0, 2**32 - 1, True, eval(state)))
    start = time.process_time()
    peer.send(data * 1000)
    assert time.process_time() - start < 1
    peer.expect_nothing()


def test_the_number_of_outcomes_is_limited() -> None:
    peer = _sent(5_000)
    assert peer.outgoing.credit == 0
    peer.outgoing.send(b"waits", on_settled=peer.node.on_settled)
    peer.play(
        ">> 0 Disposition(RECEIVER, 0, None, True, ACCEPTED)",
        "<< 0 Transfer(delivery_id=5000) + b'waits'",
        ">> 0 Disposition(RECEIVER, 1, 10, True, ACCEPTED)",
    )
    assert peer.node.events[-1] == "credit 4998"


def test_a_callback_that_ends_the_link() -> None:
    peer = _sent(0)
    link = peer.outgoing

    def on_settled(outcome: Outcome | None) -> None:
        peer.node.events.append(outcome)
        link.detach()

    for _ in range(3):
        link.send(b"m", on_settled=on_settled)
    peer.connection.data_to_send()
    peer.play(
        ">> 0 Disposition(RECEIVER, 0, 2, True, ACCEPTED)",
        "<< 0 Detach(handle=0, closed=True, error=None)",
    )
    assert peer.node.events == [ACCEPTED]


def test_a_callback_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    peer = _sent(0)
    peer.outgoing.send(b"m", on_settled=lambda outcome: 1 / 0)  # type: ignore[return-value, arg-type]
    peer.connection.data_to_send()
    peer.play(
        ">> 0 Disposition(RECEIVER, 0, None, False, ACCEPTED)",
        '<< 0 Disposition(state=Rejected(Error("amqp:internal-error", '
        '"The outcome was not handled")))',
    )
    assert "ZeroDivisionError" in caplog.text


def test_what_was_sent_on_a_link_that_ended_is_forgotten() -> None:
    peer = _sent(3)
    peer.play(
        ">> 0 Detach(0, True)",
        "<< 0 Detach()",
        ">> 0 Disposition(RECEIVER, 0, 2, True, ACCEPTED)",
    )
    assert peer.node.events == ["detached None"]
    peer.outgoing.send(b"ignored")
    peer.expect_nothing()
