"""Sessions and links: attach and detach, credit and windows, messages both ways, settlement."""

from __future__ import annotations

import time

import pytest

from emulator.amqp.connection import Limits
from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingLink
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    RELEASED,
    Attach,
    Begin,
    Disposition,
    Error,
    Modified,
    Outcome,
    Rejected,
    Source,
    Transfer,
)
from emulator.amqp.types import Symbol
from tests.amqp.playbook import RECEIVES, SENDS, SENDS_HOLDS, Node, Peer, transfer, write

# --- attach and detach (sections 2.6.3 to 2.6.6)


def test_a_sender_attaches() -> None:
    peer = Peer().begin(
        '>> 0 Attach("l", 7, SENDER, 0, SECOND, Source("s"), Target("t"), max_message_size=9)',
        '<< 0 Attach(name="l", handle=7, role=RECEIVER, snd_settle_mode=0, rcv_settle_mode=FIRST, '
        'source=Source("s"), target=Target("t"), initial_delivery_count=None, '
        "max_message_size=100000)",
        "<< 0 Flow(next_incoming_id=0, incoming_window=2048, next_outgoing_id=1, handle=7, "
        "delivery_count=0, link_credit=10)",
    )
    [link] = peer.links
    assert isinstance(link, IncomingLink)
    assert (link.address, link.attached) == ("t", True)


def test_a_receiver_attaches() -> None:
    peer = Peer().begin(
        '>> 0 Attach("l", 7, RECEIVER, 1, SECOND, Source("s", filter={Symbol("f"): 1}), '
        'Target("t"))',
        '<< 0 Attach(name="l", handle=7, role=SENDER, snd_settle_mode=1, rcv_settle_mode=SECOND, '
        'source=Source("s", filter={Symbol("f"): 1}), target=Target("t"), '
        "initial_delivery_count=0)",
    )
    assert isinstance(peer.outgoing, OutgoingLink)
    assert peer.outgoing.address == "s"


@pytest.mark.parametrize("terminus", [None, Source(), Source(5), Source([1])])
def test_an_address_can_be_missing(terminus: Source | None) -> None:
    peer = Peer().begin()
    peer.send(write(0, Attach("l", 0, RECEIVER, source=terminus)))
    assert peer.links[0].address == ""


@pytest.mark.parametrize(
    ("role", "sent", "kept"), [("SENDER", "target", "source"), ("RECEIVER", "source", "target")]
)
def test_a_link_is_refused(role: str, sent: str, kept: str) -> None:
    ends = 'source=Source("unknown"), target=Target("unknown")'
    Peer().begin(
        f'>> 0 Attach("l", 0, {role}, {ends})',
        f'<< 0 Attach(name="l", {sent}=None, {kept}={kept.title()}("unknown"))',
        "<< 0 Detach(handle=0, closed=True, "
        'error=Error("amqp:not-found", "There is no such node"))',
        ">> 0 Flow(1, 9, 0, 9, 0, 0, 10)",  # sent before the peer knew
        *(['>> 0 Transfer(0, 0, b"t") + b"m"'] if role == "SENDER" else []),
        ">> 0 Detach(0, True)",
        ">> 0 Flow(1, 9, 0, 9, echo=True)",
        "<< 0 Flow(handle=None)",
        f'>> 0 Attach("l", 0, {role}, {ends})',
        "<< 0 Attach()",
        "<< 0 Detach()",
    )


def test_transactions_are_refused() -> None:
    peer = Peer().begin(
        '>> 0 Attach("l", 0, SENDER, target=Coordinator())',
        "<< 0 Attach(target=None)",
        '<< 0 Detach(error=Error("amqp:not-implemented", "Transactions are not supported"))',
    )
    assert peer.links == []


def test_an_attach_can_be_answered_later() -> None:
    peer = Peer().begin(
        '>> 0 Attach("a", 0, RECEIVER, source=Source("later"))',
        '>> 0 Attach("b", 1, SENDER, target=Target("later"))',
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 10)",
    )
    outgoing, incoming = peer.links
    peer.accept(incoming, properties={Symbol("p"): 1}, offered_capabilities=("c",))
    peer.play(
        '<< 0 Attach(name="b", properties={Symbol("p"): 1}, offered_capabilities=("c",))',
        "<< 0 Flow(handle=1)",
    )
    peer.node.to_send.append(b"m")
    peer.accept(outgoing, source=Source("other"))
    peer.play('<< 0 Attach(name="a", source=Source("other"))', "<< 0 Transfer(handle=0) + b'm'")
    assert peer.wakes == 2


@pytest.mark.parametrize("end", [">> 0 Detach(0, True)", ">> 0 End()", ">> 0 Close()"])
def test_an_attach_that_has_ended_is_not_answered(end: str) -> None:
    peer = Peer().begin('>> 0 Attach("a", 0, RECEIVER, source=Source("later"))')
    if "Detach" in end:
        peer.play(end, "<< 0 Attach(source=None)", "<< 0 Detach(closed=True, error=None)")
    else:
        peer.play(end, end.replace(">>", "<<"))
    peer.accept(peer.links[0])
    peer.links[0].refuse(AmqpError("x"))
    peer.outgoing.send(b"m")
    peer.expect_nothing()
    assert peer.node.events == []
    assert not peer.links[0].attached


def test_an_attach_is_refused_later() -> None:
    peer = Peer().begin('>> 0 Attach("a", 0, RECEIVER, source=Source("later"))')
    peer.links[0].refuse(AmqpError("amqp:unauthorized-access", "No", {"k": 1}))
    peer.play(
        "<< 0 Attach(source=None)",
        '<< 0 Detach(error=Error("amqp:unauthorized-access", "No", {"k": 1}))',
    )
    peer.accept(peer.links[0])
    peer.expect_nothing()


def test_the_peer_detaches() -> None:
    peer = Peer().begin(
        *RECEIVES,
        '>> 0 Detach(0, False, Error("a:b", "text"))',
        "<< 0 Detach(handle=0, closed=False, error=None)",
        *RECEIVES,
    )
    assert peer.node.events == ["detached a:b"]


def test_a_link_is_detached_here() -> None:
    peer = Peer().begin(*SENDS)
    peer.links[0].detach(AmqpError("amqp:link:stolen", "Taken"))
    peer.links[0].detach()
    peer.play(
        '<< 0 Detach(handle=0, closed=True, error=Error("amqp:link:stolen", "Taken"))',
        '>> 0 Transfer(0, 0, b"t") + b"m"',  # was on its way
        ">> 0 Detach(0, True)",
        *SENDS,
    )
    assert (peer.node.events, peer.node.deliveries) == ([], [])


def test_names_are_unique_in_a_session_and_a_direction_only() -> None:
    Peer().begin(
        *SENDS,
        '>> 0 Attach("in", 1, RECEIVER, source=Source("x"))',
        "<< 0 Attach()",
        ">> 9 Begin(None, 0, 1, 1)",
        "<< 9 Begin()",
        '>> 9 Attach("in", 1, RECEIVER, source=Source("x"))',
        "<< 9 Attach()",
    )


def test_a_session_ends() -> None:
    peer = Peer().begin(*RECEIVES, '>> 0 End(Error("a:b"))', "<< 0 End(error=None)")
    assert peer.node.events == ["detached a:b"]
    peer.play(">> 0 Begin(None, 5, 1, 1)", "<< 0 Begin()", *RECEIVES)


def test_a_session_is_ended_here() -> None:
    peer = Peer().begin(*RECEIVES)
    peer.links[0].session.end(AmqpError("a:b", "text"))
    peer.play(
        '<< 0 End(error=Error("a:b", "text"))',
        ">> 0 Flow(1, 9, 0, 9, 0, 0, 10)",
        ">> 0 Detach(0)",
        ">> 0 End()",
        ">> 0 Begin(None, 5, 1, 1)",
        "<< 0 Begin()",
    )
    assert peer.node.events == ["detached a:b"]


def test_an_endpoint_that_fails_refuses_the_link(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    peer.attach = lambda link: 1 / 0  # type: ignore[method-assign, assignment]
    peer.begin(
        '>> 0 Attach("l", 0, RECEIVER)',
        "<< 0 Attach()",
        '<< 0 Detach(error=Error("amqp:internal-error", "The attach was not handled"))',
    )
    assert "ZeroDivisionError" in caplog.text


# --- messages from the peer (section 2.6.12)


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
    released.release()
    modified.modify(delivery_failed=True)
    accepted.settle()
    accepted.release()  # the second outcome is ignored
    peer.play(
        '<< 0 Disposition(first=0, state=Rejected(Error("amqp:not-found", "No device", '
        '{"k": "v"})))',
        "<< 0 Disposition(first=1, state=RELEASED)",
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


# --- messages to the peer


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
    assert (peer.outgoing.queued, peer.outgoing.credit) == (1, 0)
    peer.play(">> 0 Flow(3, 99, 0, 99, 0, 2, 2)", "<< 0 Transfer() + b'3'")
    assert peer.node.events == ["credit 1"]


def test_fields_of_a_message() -> None:
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 99, 0, 99, 0, 0, 9)")
    peer.outgoing.send(b"m", b"t" * 32, settled=True, message_format=5)
    peer.play("<< 0 Transfer(delivery_tag=b't' * 32, settled=True, message_format=5) + b'm'")
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


def _sent(count: int, answer: Outcome | AmqpError | None = None) -> Peer:
    """A peer with messages that it has not settled."""
    peer = Peer().begin(*RECEIVES, ">> 0 Flow(1, 9999, 0, 9999, 0, 0, 9999)")
    peer.connection._limits = Limits(9, 9, 9999, sent_bytes=10**9)

    def on_settled(outcome: Outcome | None) -> Outcome | None:
        peer.node.events.append(outcome)
        if isinstance(answer, AmqpError):
            raise answer
        return answer

    for _ in range(count):
        peer.outgoing.send(b"m", on_settled=on_settled)
    peer.connection.data_to_send()
    peer.node.events.clear()
    return peer


@pytest.mark.parametrize(
    "outcome",
    [ACCEPTED, RELEASED, Modified(True), Rejected(Error("a:b")), Rejected(), None],
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
    ("answer", "state"),
    [
        (None, "ACCEPTED"),
        (RELEASED, "RELEASED"),
        (AmqpError("a:lost", "Gone"), 'Rejected(Error("a:lost", "Gone"))'),
    ],
)
def test_the_outcome_is_confirmed_to_a_peer_that_waits(
    answer: Outcome | AmqpError | None, state: str
) -> None:
    peer = _sent(1, answer)
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
    )


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


# --- floods


def test_many_links_and_sessions_cost_little() -> None:
    start = time.process_time()
    peer = Peer(limits=Limits(16, 64, 1000)).begin()
    attaches = [write(0, Attach(f"l{each}", each, RECEIVER)) for each in range(10_000)]
    peer.send(b"".join(attaches))
    assert peer.connection.closed
    assert len(peer.links) <= 64
    peer = Peer(limits=Limits(16, 64, 1000)).begin()
    peer.send(b"".join(write(each, Begin(None, 0, 1, 1)) for each in range(1, 10_000)))
    assert peer.connection.closed
    assert time.process_time() - start < 2
