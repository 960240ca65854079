"""Messages from a peer: credit, frames, outcomes (section 2.6.12)."""

from __future__ import annotations

import pytest

from emulator.amqp.errors import AmqpError
from emulator.amqp.limits import Limits
from emulator.amqp.performatives import Modified, Released, Transfer
from tests.amqp.playbook import SENDS, SENDS_HOLDS, Node, Peer, transfer, write


def test_messages_are_settled_in_rows() -> None:
    peer = Peer().begin(*SENDS)
    peer.send(b"".join(map(transfer, [0, 1, 2])))
    peer.play("<< 0 Disposition(role=RECEIVER, first=0, last=2, settled=True, state=ACCEPTED)")
    peer.send(transfer(3) + transfer(5))
    peer.play(
        "<< 0 Disposition(first=3, last=3)",
        "<< 0 Disposition(first=5, last=5)",
        "<< 0 Flow(handle=0, delivery_count=5, link_credit=10)",
    )
    assert peer.node.bodies == [b"m"] * 5
    assert [each.tag for each in peer.node.deliveries] == [b"0", b"1", b"2", b"3", b"5"]


def test_a_row_crosses_the_end_of_the_numbers() -> None:
    peer = Peer().begin(*SENDS)
    peer.send(transfer(2**32 - 1) + transfer(0))
    peer.play(f"<< 0 Disposition(first={2**32 - 1}, last=0)")


def test_an_outcome_is_sent_before_what_is_sent_later() -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(
        *SENDS,
        '>> 0 Attach("r", 1, RECEIVER, source=Source("x"))',
        "<< 0 Attach()",
        ">> 0 Flow(1, 99, 0, 99, 1, 0, 9)",
    )
    peer.send(transfer(0) + transfer(1))
    peer.expect_nothing()
    first, second = peer.node.deliveries
    first.settle()
    peer.outgoing.send(b"reply 1")
    second.settle()
    peer.outgoing.send(b"reply 2")
    peer.play(
        "<< 0 Disposition(first=0, last=0)",
        "<< 0 Transfer() + b'reply 1'",
        "<< 0 Disposition(first=1, last=1)",
        "<< 0 Transfer() + b'reply 2'",
    )
    assert peer.wakes == 1


def test_each_outcome() -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(*SENDS)
    peer.send(b"".join(map(transfer, range(4))))
    rejected, released, modified, accepted = peer.node.deliveries
    rejected.reject(AmqpError("amqp:not-found", "No device", {"k": "v"}))
    released.settle(Released())
    modified.settle(Modified(True))
    accepted.settle()
    accepted.settle(Released())  # the second outcome is ignored
    peer.play(
        '<< 0 Disposition(first=0, state=Rejected(Error("amqp:not-found", "No device", '
        '{"k": "v"})))',
        "<< 0 Disposition(first=1, state=Released())",
        "<< 0 Disposition(first=2, state=Modified(True))",
        "<< 0 Disposition(first=3, state=ACCEPTED)",
    )


def test_a_message_that_cannot_be_handled_is_rejected(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer().begin(*SENDS)
    errors = [AmqpError("a:b", "text"), RuntimeError("broken")]

    def fail(delivery: object) -> None:
        raise errors.pop(0)

    peer.node.on_message = fail  # type: ignore[method-assign]
    peer.send(transfer(0) + transfer(1))
    peer.play(
        '<< 0 Disposition(first=0, state=Rejected(Error("a:b", "text")))',
        '<< 0 Disposition(first=1, state=Rejected(Error("amqp:internal-error", '
        '"The message was not handled")))',
    )
    assert "RuntimeError: broken" in caplog.text


def test_messages_that_are_settled_get_no_outcome_and_bring_credit() -> None:
    peer = Peer().begin(*SENDS)
    for number in range(4):
        peer.send(transfer(number, settled=True))
    peer.expect_nothing()
    peer.send(transfer(0, settled=True))  # their ids are not in use
    peer.play("<< 0 Flow(delivery_count=5, link_credit=10)")


def test_credit_is_for_what_is_not_settled_too() -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(*SENDS)
    peer.send(b"".join(map(transfer, range(10))))
    peer.expect_nothing()
    for each in peer.node.deliveries[:5]:
        each.settle()
    peer.play(
        "<< 0 Disposition(first=0, last=4)",
        "<< 0 Flow(delivery_count=10, link_credit=5)",
    )


def test_a_credit_of_one() -> None:
    peer = Peer()
    peer.credit = 1
    peer.begin(*SENDS)
    for number in range(3):
        peer.send(transfer(number))
        peer.play(
            f"<< 0 Disposition(first={number})",
            f"<< 0 Flow(delivery_count={number + 1}, link_credit=1)",
        )


def test_the_sender_settles_first() -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(*SENDS)
    peer.send(b"".join(map(transfer, range(3))))
    peer.play(">> 0 Disposition(SENDER, 1, 500, True)", ">> 0 Disposition(SENDER, 0)")
    assert [each.settled for each in peer.node.deliveries] == [False, True, True]
    for each in peer.node.deliveries:
        each.settle()
    peer.play("<< 0 Disposition(first=0, last=0)")


def test_messages_in_several_frames() -> None:
    peer = Peer().begin(*SENDS)
    peer.play(
        '>> 0 Transfer(0, 0, b"t", 0, more=True) + b"one "',
        '>> 0 Transfer(0, more=True) + b"two "',
        '>> 0 Transfer(0, 0, b"t") + b"three"',
        "<< 0 Disposition(first=0, last=0)",
        '>> 0 Transfer(0, 1, b"u", more=True) + b""',
        '>> 0 Transfer(0, settled=True) + b"end"',
    )
    assert peer.node.bodies == [b"one two three", b"end"]


def test_messages_of_two_links_in_turns() -> None:
    peer = Peer().begin(
        *SENDS,
        '>> 0 Attach("m", 1, SENDER, target=Target("x"))',
        "<< 0 Attach()",
        "<< 0 Flow()",
        '>> 0 Transfer(0, 0, b"t", 0, more=True) + b"a"',
        '>> 0 Transfer(1, 1, b"t", 0, more=True) + b"b"',
        '>> 0 Transfer(0) + b"a"',
        "<< 0 Disposition(first=0)",
        '>> 0 Transfer(1) + b"b"',
        "<< 0 Disposition(first=1)",
    )
    assert peer.node.bodies == [b"aa", b"bb"]


def test_a_message_is_aborted() -> None:
    peer = Peer(limits=Limits(9, 9, 2000 + SENDS_HOLDS))
    peer.credit = 1
    peer.begin(*SENDS)
    for number in range(3):
        peer.send(transfer(number, bytes(1500), more=True))
        peer.expect_nothing()
        peer.send(write(0, Transfer(0, aborted=True)))
        peer.play(f"<< 0 Flow(delivery_count={number + 1}, link_credit=1)")
    assert peer.node.deliveries == []
    peer.send(transfer(9, bytes(2000)))
    assert len(peer.node.deliveries) == 1


@pytest.mark.parametrize("pieces", [1, 4])
def test_a_message_that_is_too_large_ends_its_link(pieces: int) -> None:
    peer = Peer(limits=Limits(9, 9, 2000 + SENDS_HOLDS))
    peer.max_message_size = 1000
    peer.begin(*SENDS)
    for number in range(3):
        frames = [
            write(0, Transfer(0, number, b"t", more=each < pieces - 1), bytes(1001 // pieces + 1))
            for each in range(pieces)
        ]
        peer.send(b"".join(frames) + transfer(99))
        peer.play(
            '<< 0 Detach(closed=True, error=Error("amqp:link:message-size-exceeded", '
            '"A message has more than 1000 bytes"))',
            ">> 0 Detach(0, True)",
            *SENDS,
        )
    assert peer.node.events == ["detached amqp:link:message-size-exceeded"] * 3
    assert peer.node.deliveries == []


def test_what_a_link_held_is_dropped_with_it() -> None:
    peer = Peer(limits=Limits(9, 9, 2000 + SENDS_HOLDS))
    peer.node = Node(settles=False)
    peer.begin()
    for end in ("Detach(0, True)", "End()"):
        for _ in range(3):
            peer.play(*SENDS)
            peer.send(transfer(0, bytes(1000)) + transfer(1, bytes(900), more=True))
            peer.play(f">> 0 {end}", f"<< 0 {end.partition('(')[0]}()")
            if end == "End()":
                peer.play(">> 0 Begin(None, 0, 1, 1)", "<< 0 Begin()")
    for each in peer.node.deliveries:
        each.settle()
    peer.play(*SENDS)
    peer.send(transfer(0, bytes(2000)))
    assert not peer.connection.closed


def test_the_session_window_is_renewed() -> None:
    peer = Peer()
    peer.credit = 10_000
    peer.begin(*SENDS)
    peer.send(b"".join(transfer(each, settled=True) for each in range(1023)))
    peer.expect_nothing()
    peer.send(transfer(1023, settled=True))
    peer.play("<< 0 Flow(next_incoming_id=1024, incoming_window=2048, handle=None)")


def test_the_peer_gives_credit_back() -> None:
    peer = Peer().begin(*SENDS, ">> 0 Flow(1, 9, 0, 9, 0, 7, 0)")  # its count skips seven
    for number in range(3):
        peer.send(transfer(number))
    peer.play(
        "<< 0 Disposition(first=0)",
        "<< 0 Flow(delivery_count=8, link_credit=10)",
        "<< 0 Disposition(first=1, last=2)",
    )


@pytest.mark.parametrize("count", [2**32 - 5, 11, 2**31])
def test_the_peer_cannot_make_credit(count: int) -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(*SENDS, f">> 0 Flow(1, 9, 0, 9, 0, {count}, 0)")
    peer.send(b"".join(map(transfer, range(10))))
    peer.expect_nothing()
    peer.send(transfer(10))
    peer.expect_closed("amqp:link:transfer-limit-exceeded")


def test_flows_with_echo_are_answered() -> None:
    Peer().begin(
        *SENDS,
        ">> 0 Flow(1, 9, 0, 9, 0, 0, echo=True)",
        "<< 0 Flow(handle=0, delivery_count=0, link_credit=10, echo=False)",
        ">> 0 Flow(1, 9, 0, 9, echo=True)",
        "<< 0 Flow(handle=None)",
        '>> 0 Attach("out", 1, RECEIVER, source=Source("x"))',
        "<< 0 Attach()",
        ">> 0 Flow(1, 9, 0, 9, 1, 0, 5, echo=True)",
        "<< 0 Flow(handle=1, delivery_count=0, link_credit=5, available=0)",
    )
