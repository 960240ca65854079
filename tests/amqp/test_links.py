"""Sessions and links: attach and detach, now or later, here or by the peer."""

from __future__ import annotations

import gc
import time
import weakref

import pytest

from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingLink
from emulator.amqp.limits import Limits
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    End,
    Source,
    Target,
)
from tests.amqp.lab import AmqpClient, Lab, device_token, service_token
from tests.amqp.playbook import RECEIVES, SENDS, Peer, write

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
        '<< 0 Detach(handle=0, closed=True, error=Error("amqp:not-found", "Unknown node"))',
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
    peer.accept(incoming)
    peer.play('<< 0 Attach(name="b")', "<< 0 Flow(handle=1)")
    peer.node.to_send.append(b"m")
    peer.accept(outgoing, offered_capabilities=("c",))
    peer.play(
        '<< 0 Attach(name="a", offered_capabilities=("c",))', "<< 0 Transfer(handle=0) + b'm'"
    )
    assert peer.wakes == 2


@pytest.mark.parametrize("end", [">> 0 Detach(0, True)", ">> 0 End()", ">> 0 Close()"])
def test_an_attach_that_has_ended_is_not_answered(end: str) -> None:
    peer = Peer().begin('>> 0 Attach("a", 0, RECEIVER, source=Source("later"))')
    if "Detach" in end:
        peer.play(end, "<< 0 Attach(source=None)", "<< 0 Detach(closed=True, error=None)")
    else:
        peer.play(end, end.replace(">>", "<<"))
    peer.accept(peer.links[0])
    peer.links[0].drop(AmqpError("x"))
    peer.outgoing.send(b"m")
    peer.expect_nothing()
    assert peer.node.events == []
    assert not peer.links[0].attached


def test_an_attach_is_refused_later() -> None:
    peer = Peer().begin('>> 0 Attach("a", 0, RECEIVER, source=Source("later"))')
    peer.links[0].detach(AmqpError("amqp:unauthorized-access", "No", {"k": 1}))
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


def test_a_node_that_fails_has_its_link_detached() -> None:
    peer = Peer()

    def attach(link: IncomingLink) -> None:
        peer.accept(link)
        raise AmqpError("a:b", "text")

    peer.attach = attach  # type: ignore[method-assign, assignment]
    peer.begin(*SENDS, '<< 0 Detach(closed=True, error=Error("a:b", "text"))', ">> 0 Detach(0)")
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


def test_the_links_of_a_session_end_one_at_each_step_of_the_peers_end() -> None:
    peer = Peer().begin()
    for number in range(100):
        peer.send(write(0, Attach(f"l{number}", number, SENDER, target=Target("x"))))
    assert not peer.connection.is_short(write(0, End()))
    ended = []
    for _ in peer.connection.receive(write(0, End()) + write(0, Begin(None, 0, 9, 9)), peer.now):
        ended.append(len(peer.node.events))
    assert ended == [*range(101), 100]
    assert peer.connection.links == 0


@pytest.mark.parametrize("how", ["detach", "end", "lost"])
@pytest.mark.parametrize(
    "attach",
    [
        Attach("l", 5, SENDER, target=Target("/messages/devicebound")),
        Attach("l", 5, RECEIVER, source=Source("/messages/serviceBound/feedback")),
        Attach("l", 5, RECEIVER, source=Source("$cbs")),
        Attach("l", 5, SENDER, target=Target("$cbs")),
        Attach("l", 5, SENDER, target=Target("/devices/d1/messages/events")),
        Attach("l", 5, RECEIVER, source=Source("/devices/d1/messages/devicebound")),
    ],
    ids=["c2d", "feedback", "cbs replies", "cbs", "telemetry", "commands"],
)
def test_a_link_that_has_ended_is_no_garbage(lab: Lab, attach: Attach, how: str) -> None:
    """The garbage of thousands of links would be collected in one long step."""
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab))
    client.put_token(device_token(lab))
    client.send(write(0, attach))
    client.connection.data_to_send()
    link = weakref.ref(client.connection.all_links()[-1])
    client.session(1).sender("/messages/devicebound", 1)  # the client knows its newest link
    gc.disable()
    try:
        if how == "detach":
            client.send(write(0, Detach(5, closed=True)))
        elif how == "end":
            client.send(write(0, End()))
        else:
            client.connection.lost()
        assert link() is None
    finally:
        gc.enable()
