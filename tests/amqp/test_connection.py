"""A connection: headers, SASL, open and close, timers, limits, and rules that a peer breaks."""

from __future__ import annotations

import pytest

from emulator.amqp import frame
from emulator.amqp.composite import Composite
from emulator.amqp.errors import AmqpError
from emulator.amqp.limits import Limits
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    Source,
    Target,
    Transfer,
)
from emulator.amqp.sasl import Credentials
from emulator.amqp.types import Symbol
from tests.amqp.playbook import (
    RECEIVES,
    RECEIVES_HOLDS,
    SENDS,
    SENDS_HOLDS,
    Node,
    Peer,
    transfer,
    write,
)

# --- headers and SASL (sections 2.2 and 5.3)


def test_a_connection_without_sasl() -> None:
    peer = Peer()
    peer.send(frame.AMQP_HEADER)
    assert peer.take_bytes(8) == frame.AMQP_HEADER
    peer.play(
        '>> 0 Open("c", hostname="hub.test")',
        '<< 0 Open(container_id="hub", max_frame_size=65536, channel_max=65535, '
        "idle_time_out=240000)",
        ">> 0 Close()",
        "<< 0 Close(error=None)",
        "<< CLOSED",
    )
    assert peer.credentials is None
    assert peer.closes == 1
    assert peer.opens == [Open("c", hostname="hub.test")]


@pytest.mark.parametrize(
    ("init", "credentials"),
    [
        (SaslInit("MSSBCBS"), Credentials("MSSBCBS")),
        (SaslInit("ANONYMOUS", b"", "host"), Credentials("ANONYMOUS")),
        (
            SaslInit("ANONYMOUS", b"\0iothubowner"),
            Credentials("ANONYMOUS", response=b"\0iothubowner"),
        ),
        (SaslInit("EXTERNAL"), Credentials("EXTERNAL")),
        (
            SaslInit("PLAIN", "\0d1@sas.hub\0pässword".encode()),
            Credentials("PLAIN", "d1@sas.hub", "pässword"),
        ),
        (SaslInit("PLAIN", b"as\0user\0"), Credentials("PLAIN", "user")),
    ],
)
def test_sasl(init: SaslInit, credentials: Credentials) -> None:
    peer = Peer()
    peer.send(frame.SASL_HEADER)
    assert peer.take_bytes(8) == frame.SASL_HEADER
    expected = SaslMechanisms(("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"))
    assert peer.take(frame.SASL) == (0, expected, b"")
    peer.send(frame.write(0, init, frame.SASL))
    assert peer.take(frame.SASL) == (0, SaslOutcome(0), b"")
    assert peer.credentials == credentials
    peer.begin()


@pytest.mark.parametrize(
    "init",
    [
        SaslInit("SCRAM-SHA-1"),
        SaslInit("PLAIN"),
        SaslInit("PLAIN", b"user\0password"),
        SaslInit("PLAIN", b"\0user\0password\0more"),
        SaslInit("PLAIN", b"\0\xff\0p"),
    ],
)
def test_sasl_refuses(init: SaslInit) -> None:
    peer = Peer()
    peer.send(frame.SASL_HEADER + frame.write(0, init, frame.SASL) + frame.AMQP_HEADER)
    peer.take_bytes(8)
    peer.take(frame.SASL)
    assert peer.take(frame.SASL) == (0, SaslOutcome(1), b"")
    peer.expect_nothing()
    assert peer.connection.closed
    assert peer.credentials is None


def test_the_endpoint_can_refuse_credentials() -> None:
    peer = Peer()
    peer.refuses = True
    init = SaslInit("PLAIN", b"\0u\0p")
    peer.send(frame.SASL_HEADER + frame.write(0, init, frame.SASL))
    assert peer.connection.closed
    assert peer.connection.error is not None
    assert peer.connection.error.condition == "amqp:unauthorized-access"


@pytest.mark.parametrize(
    "data",
    [
        *(b"GET / HTTP/1.1\r\n", b"AMQP\x02\x01\x00\x00", b"AMQP\x00\x00\x09\x01", bytes(8)),
        *(b"AMQP\x00\x01\x00\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01"),
    ],
)
def test_another_header_is_answered_with_the_right_one(data: bytes) -> None:
    peer = Peer()
    peer.send(data)
    assert peer.take_bytes(8) == frame.AMQP_HEADER
    peer.expect_nothing()
    assert peer.connection.closed


@pytest.mark.parametrize("refuses", [False, True])
def test_sasl_in_several_steps(refuses: bool) -> None:
    peer = Peer()
    peer.challenges, peer.refuses = [b"a", b""], refuses
    peer.send(frame.SASL_HEADER + frame.write(0, SaslInit("EXTERNAL"), frame.SASL))
    peer.take_bytes(8)
    peer.take(frame.SASL)
    for challenge, response in ((b"a", b"1"), (b"", b"2")):
        assert peer.take(frame.SASL) == (0, SaslChallenge(challenge), b"")
        peer.send(frame.write(0, SaslResponse(response), frame.SASL))
    assert peer.take(frame.SASL) == (0, SaslOutcome(int(refuses)), b"")
    assert peer.responses == [b"1", b"2"]
    assert peer.connection.closed is refuses
    if not refuses:
        peer.begin()


@pytest.mark.parametrize(
    "frames",
    [
        (SaslResponse(b""),),
        (SaslInit("EXTERNAL"), SaslInit("EXTERNAL")),
        (SaslInit("EXTERNAL"), SaslOutcome(0)),
    ],
)
def test_frames_of_sasl_have_an_order(frames: tuple[Composite, ...]) -> None:
    peer = Peer()
    peer.challenges = [b"a"]
    peer.send(frame.SASL_HEADER + b"".join(frame.write(0, each, frame.SASL) for each in frames))
    assert peer.connection.error is not None
    assert peer.connection.error.condition == "amqp:not-allowed"


def test_sasl_comes_once() -> None:
    peer = Peer()
    init = frame.write(0, SaslInit("ANONYMOUS"), frame.SASL)
    peer.send(frame.SASL_HEADER + init + frame.SASL_HEADER)
    assert peer.connection.closed


def test_all_in_single_bytes() -> None:
    peer = Peer()
    init = frame.write(0, SaslInit("ANONYMOUS"), frame.SASL)
    for each in frame.SASL_HEADER + init:
        peer.send(bytes([each]))
    peer.take_bytes(8)
    assert peer.take(frame.SASL)[1] is not None
    assert peer.take(frame.SASL) == (0, SaslOutcome(0), b"")
    data = frame.AMQP_HEADER + write(0, Open("c")) + write(5, Begin(None, 0, 9, 9))
    for each in data + write(5, Attach("l", 0, SENDER, target=Target("x"))):
        peer.send(bytes([each]))
    peer.take_bytes(8)
    names = [type(peer.take()[1]).__name__ for _ in range(4)]
    assert names == ["Open", "Begin", "Attach", "Flow"]


# --- open and close (section 2.4)


def test_the_endpoint_can_refuse_an_open() -> None:
    peer = Peer()
    peer.on_open = AmqpError("amqp:unauthorized-access", "No")
    peer.send(frame.AMQP_HEADER + write(0, Open("c")) + write(0, Begin(None, 0, 1, 1)))
    peer.take_bytes(8)
    assert isinstance(peer.take()[1], Open)
    peer.expect_closed("amqp:unauthorized-access")


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (write(0, Begin(None, 0, 1, 1)), "amqp:not-allowed"),
        (write(0, Close()), "amqp:not-allowed"),
        (write(0, Open("c", max_frame_size=511)), "amqp:invalid-field"),
        (write(0, Open("c" * 10_000)), "amqp:connection:framing-error"),
        (b"\0\0\0\x08\x02\x01\0\0", "amqp:connection:framing-error"),
        (b"\0\0\0\x09\x02\0\0\0\x40", "amqp:decode-error"),
    ],
)
def test_an_open_must_come_first(data: bytes, condition: str) -> None:
    peer = Peer()
    peer.send(frame.AMQP_HEADER + data)
    peer.take_bytes(8)
    assert isinstance(peer.take()[1], Open)
    peer.expect_closed(condition)


def test_closed_by_the_endpoint() -> None:
    peer = Peer().begin(*SENDS)
    peer.connection.close(AmqpError("amqp:connection:forced", "The hub stops"))
    assert peer.wakes == 1
    peer.expect_closed("amqp:connection:forced")
    assert peer.node.events == ["detached amqp:connection:forced"]
    peer.send(write(0, End()))  # what still arrives is ignored
    peer.connection.close()
    peer.connection.tick(1e9)
    peer.connection.drained()
    peer.expect_nothing()


def test_lost() -> None:
    peer = Peer().begin(*SENDS)
    peer.connection.lost()
    assert (peer.node.events, peer.closes) == (["detached None"], 1)
    assert peer.connection.closed
    peer.connection.lost()
    assert peer.closes == 1
    assert not peer.links[0].attached
    peer.links[0].detach()
    peer.expect_nothing()


_BROKEN = {
    "an open again": (write(0, Open("c")), "amqp:illegal-state"),
    "a begin on a channel in use": (write(0, Begin(None, 0, 1, 1)), "amqp:not-allowed"),
    "a begin that answers": (write(1, Begin(0, 0, 1, 1)), "amqp:not-allowed"),
    "an attach without a session": (write(1, Attach("l", 0, True)), "amqp:not-allowed"),
    "a flow without a session": (write(1, Flow(0, 0, 0, 0)), "amqp:not-allowed"),
    "a transfer without a session": (write(1, Transfer(0)), "amqp:not-allowed"),
    "a transfer on no link": (transfer(0, handle=5), "amqp:session:unattached-handle"),
    "a flow on no link": (write(0, Flow(0, 9, 0, 9, 5)), "amqp:session:unattached-handle"),
    "a transfer on a link of the other direction": (transfer(0, handle=1), "amqp:not-allowed"),
    "an attach on a handle in use": (
        write(0, Attach("n", 0, SENDER, target=Target("x"))),
        "amqp:session:handle-in-use",
    ),
    "an attach of a link that is attached": (
        write(0, Attach("in", 9, SENDER, target=Target("x"))),
        "amqp:not-allowed",
    ),
    "a delivery without an id": (write(0, Transfer(0, None, b"t")), "amqp:invalid-field"),
    "a delivery without a tag": (write(0, Transfer(0, 0)), "amqp:invalid-field"),
    "a delivery with a tag of 33 bytes": (
        write(0, Transfer(0, 0, b"t" * 33)),
        "amqp:invalid-field",
    ),
    "another delivery before the end of one": (
        transfer(0, more=True) + transfer(1),
        "amqp:not-allowed",
    ),
    "another tag within a delivery": (
        transfer(0, more=True) + write(0, Transfer(0, None, b"x")),
        "amqp:not-allowed",
    ),
    "messages beyond the credit": (
        b"".join(map(transfer, range(11))),
        "amqp:link:transfer-limit-exceeded",
    ),
    "a frame that is too large": (b"\0\1\0\1\2\0\0\0", "amqp:connection:framing-error"),
    "a frame of SASL": (b"\0\0\0\x08\x02\x01\0\0", "amqp:connection:framing-error"),
    "garbage": (b"\xff" * 1000, "amqp:connection:framing-error"),
    "a body that is garbage": (
        b"\0\0\0\x10\2\0\0\0\0\x53\x14\xd0\xff\xff\xff\xff",
        "amqp:decode-error",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "condition"), _BROKEN.values(), ids=_BROKEN)
def test_a_broken_rule_closes_the_connection(data: bytes, condition: str) -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(
        *SENDS,
        '>> 0 Attach("out", 1, RECEIVER, source=Source("x"))',
        "<< 0 Attach()",
    )
    peer.send(data + write(0, Flow(0, 9, 0, 9, 99)))  # what is behind it is ignored
    peer.expect_closed(condition)
    assert peer.connection.error is not None
    assert peer.connection.error.condition == condition
    assert peer.node.events == [f"detached {condition}"] * 2


def test_a_delivery_id_in_use() -> None:
    peer = Peer()
    peer.node = Node(settles=False)
    peer.begin(*SENDS)
    peer.send(transfer(7) + transfer(7))
    peer.expect_closed("amqp:not-allowed")


# --- timers (section 2.4.5)


def test_a_silent_peer_is_disconnected_after_twice_its_time() -> None:
    peer = Peer(limits=Limits(9, 9, 9)).begin()
    assert peer.connection.next_deadline() == 1480
    peer.now = 1240
    peer.send(frame.EMPTY)
    assert peer.connection.next_deadline() == 1720
    peer.connection.tick(1719)
    peer.expect_nothing()
    peer.connection.tick(1720)
    peer.expect_closed("amqp:connection:forced")


@pytest.mark.parametrize(("offered", "seconds"), [(60_000, 30), (1, 0.5)])
def test_empty_frames_are_sent_to_a_peer_with_a_time_out(offered: int, seconds: float) -> None:
    peer = Peer().begin(idle_time_out=offered)
    assert peer.connection.next_deadline() == 1000 + seconds
    peer.connection.tick(1000 + seconds - 0.1)
    peer.expect_nothing()
    peer.connection.tick(1000 + seconds)
    peer.play("<< EMPTY")
    assert peer.connection.next_deadline() == 1000 + 2 * seconds
    assert peer.wakes == 0


def test_a_peer_must_be_authorized_in_time() -> None:
    limits = Limits(9, 9, 9, seconds=60)
    peer = Peer(limits=limits)
    assert peer.connection.next_deadline() == 1060
    peer.connection.tick(1060)
    assert peer.connection.closed

    peer = Peer(limits=limits).begin()
    peer.connection.tick(1060)
    peer.expect_closed("amqp:unauthorized-access")

    peer = Peer(limits=limits).begin()
    peer.connection.authorized()
    peer.connection.tick(1061)
    peer.expect_nothing()


# --- limits


def test_the_number_of_sessions_is_limited() -> None:
    peer = Peer(limits=Limits(3, 9, 9)).begin()
    for channel in (5, 6):
        peer.play(
            f">> {channel} Begin(None, 0, 1, 1)", f"<< {channel} Begin(remote_channel={channel})"
        )
    peer.play(">> 5 End()", "<< 5 End()", ">> 7 Begin(None, 0, 1, 1)", "<< 7 Begin()")
    peer.send(write(8, Begin(None, 0, 1, 1)))
    peer.expect_closed("amqp:resource-limit-exceeded")


def test_what_a_client_still_says_about_an_ended_session_is_ignored() -> None:
    """azure-eventhub detaches links, and @azure/event-hubs accepts messages."""
    peer = Peer().begin(">> 5 Begin(None, 0, 1, 1)", "<< 5 Begin()", ">> 5 End()", "<< 5 End()")
    peer.play(">> 5 Detach(0, True)", ">> 5 End()")
    peer.send(write(5, Disposition(True, 0, 5, True)))
    peer.expect_nothing()
    assert not peer.connection.closed


def test_the_number_of_links_is_limited_over_all_sessions() -> None:
    peer = Peer(limits=Limits(9, 2, 999)).begin(">> 1 Begin(None, 0, 1, 1)", "<< 1 Begin()")
    attach = '0 Attach("l", 0, RECEIVER, source=Source("x"))'
    peer.play(f">> {attach}", "<< 0 Attach()", ">> 0 Detach(0)", "<< 0 Detach()")
    peer.play(f">> {attach}", "<< 0 Attach()")
    peer.play(
        '>> 1 Attach("l", 0, RECEIVER, source=Source("unknown"))', "<< 1 Attach()", "<< 1 Detach()"
    )
    peer.play(">> 1 Detach(0, True)")
    peer.play(
        '>> 1 Attach("l", 0, RECEIVER, source=Source("unknown"))', "<< 1 Attach()", "<< 1 Detach()"
    )
    assert peer.connection.links == 2  # the peer has not detached the link that was refused
    peer.send(write(1, Attach("m", 1, RECEIVER, source=Source("x"))))
    peer.expect_closed("amqp:resource-limit-exceeded")


def test_the_end_of_a_session_makes_room_for_links() -> None:
    peer = Peer(limits=Limits(9, 1, 999))
    peer.begin(*RECEIVES)
    peer.play(">> 0 End()", "<< 0 End()", ">> 0 Begin(None, 0, 1, 1)", "<< 0 Begin()")
    assert peer.connection.links == 0
    peer.play('>> 0 Attach("l", 0, RECEIVER, source=Source("x"))', "<< 0 Attach()")


@pytest.mark.parametrize("more", [False, True])
def test_the_bytes_that_are_not_settled_are_limited(more: bool) -> None:
    peer = Peer(limits=Limits(9, 9, 2500 + SENDS_HOLDS))
    peer.node = Node(settles=False)
    peer.begin(*SENDS)
    peer.send(transfer(0, bytes(1000)) + transfer(1, bytes(1000)))
    peer.node.deliveries[0].settle()
    peer.send(transfer(2, bytes(1000)) + transfer(3, bytes(500), more=more))
    assert not peer.connection.closed
    peer.send(transfer(4 - more, b"1"))
    peer.expect_closed("amqp:resource-limit-exceeded")


def test_what_links_hold_is_limited() -> None:
    peer = Peer(limits=Limits(99, 99, 10_000)).begin()
    ends = Source("unknown", filter={Symbol("f"): "x" * 3000})
    for handle in range(4):
        peer.send(write(0, Attach(f"l{handle}", handle, RECEIVER, source=ends)))
    assert peer.connection.closed
    assert len(peer.links) == 3

    peer = Peer(limits=Limits(99, 99, 10_000)).begin()
    for _ in range(9):
        peer.send(write(0, Attach("l", 0, RECEIVER, source=ends)) + write(0, Detach(0)))
    assert not peer.connection.closed


def test_bytes_that_wait_for_credit_are_limited() -> None:
    peer = Peer(limits=Limits(9, 9, 2500 + RECEIVES_HOLDS))
    peer.begin(*RECEIVES)
    for _ in range(2):
        peer.outgoing.send(bytes(1000))
    assert peer.outgoing.credit == 0
    assert not peer.connection.closed
    peer.outgoing.send(bytes(1000))
    peer.expect_closed("amqp:resource-limit-exceeded")
    assert peer.node.events == ["detached amqp:resource-limit-exceeded"]


def test_links_go_on_sending_when_the_peer_has_read() -> None:
    peer = Peer(limits=Limits(9, 9, 9999, sent_bytes=3000))
    peer.node.to_send.extend([bytes(1000)] * 5)
    peer.begin(*RECEIVES)
    peer.connection.drained()
    peer.send(write(0, Flow(1, 9999, 0, 9999, 0, 0, 100)))
    assert len(peer.node.to_send) == 2
    assert peer.connection.congested
    assert peer.outgoing.credit == 0
    peer.outgoing.send(b"waits")
    peer.play(*["<< 0 Transfer(handle=0) + bytes(1000)"] * 3)
    peer.connection.drained()
    peer.play("<< 0 Transfer() + b'waits'", *["<< 0 Transfer() + bytes(1000)"] * 2)
    assert not peer.connection.congested
    assert peer.outgoing.credit == 94
    assert peer.wakes == 0


def test_a_wake_is_asked_for_once() -> None:
    peer = Peer().begin(
        *RECEIVES,
        ">> 0 Flow(1, 99, 0, 99, 0, 0, 9)",
    )
    assert peer.wakes == 0
    peer.outgoing.send(b"1")
    peer.outgoing.send(b"2")
    assert peer.wakes == 1
    peer.play("<< 0 Transfer() + b'1'", "<< 0 Transfer() + b'2'")
    peer.outgoing.send(b"3")
    assert peer.wakes == 2


def test_late_frames_of_azure_eventhub_are_ignored() -> None:
    peer = Peer().begin(">> 0 End()", "<< 0 End()")
    peer.play(">> 0 Detach(3, False)", ">> 0 End()", ">> 0 Close()", "<< 0 Close()", "<< CLOSED")


def test_an_error_in_the_endpoint_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    peer.on_open = RuntimeError("broken")  # type: ignore[assignment]
    peer.send(frame.AMQP_HEADER + write(0, Open("c")))
    peer.take_bytes(8)
    peer.take()
    peer.expect_closed("amqp:internal-error")
    assert "A frame was not handled" in caplog.text
