"""Transcripts of a connection: which frames go in, and which come out.

    peer.play('''
        >> 0 Attach("l", 0, SENDER, target=Target("node"))
        << 0 Attach(name="l", handle=0, role=RECEIVER)
        << 0 Flow(handle=0, link_credit=10)
    ''')

`>>` is a frame that the peer sends on a channel, `<<` one that the connection sends. Of the latter,
the fields are compared that the transcript names. The connection must send exactly these frames.
Behind `+` stands the payload of a transfer, as a Python expression.

    << CLOSED      the connection has ended, and nothing more is sent
    << EMPTY       an empty frame
"""

from __future__ import annotations

from collections import deque
from typing import Any

from emulator.amqp import frame, performatives
from emulator.amqp.connection import Connection
from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingDelivery, IncomingLink
from emulator.amqp.limits import AUTHORIZED, Limits
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Open,
    Outcome,
    Source,
    Target,
    Transfer,
)
from emulator.amqp.sasl import Answer, Credentials
from emulator.amqp.types import Symbol

_NAMES: dict[str, Any] = {**vars(performatives), "Symbol": Symbol}

Frame = frame.Frame

# A peer attaches a link on handle 0, to send messages, or to receive them.
SENDS = ('>> 0 Attach("in", 0, SENDER, target=Target("x"))', "<< 0 Attach()", "<< 0 Flow()")
RECEIVES = ('>> 0 Attach("out", 0, RECEIVER, source=Source("x"))', "<< 0 Attach()")


class Node:
    """A handler of links in both directions, which writes down what happens."""

    def __init__(self, *, settles: bool = True) -> None:
        self.settles = settles
        self.deliveries: list[IncomingDelivery] = []
        self.events: list[Any] = []
        self.to_send: deque[bytes] = deque()
        self.link: OutgoingLink | None = None

    def on_message(self, delivery: IncomingDelivery) -> None:
        """See `Receiver.on_message`."""
        self.deliveries.append(delivery)
        if self.settles:
            delivery.settle()

    def on_credit(self) -> None:
        """See `Sender.on_credit`."""
        assert self.link
        self.events.append(f"credit {self.link.credit}")
        while self.to_send and self.link.credit:
            self.link.send(self.to_send.popleft())

    def on_detached(self, error: AmqpError | None) -> None:
        """See `Handler.on_detached`."""
        self.events.append(f"detached {error.condition if error else None}")

    def on_settled(self, outcome: Outcome | None) -> None:
        """See `OnSettled`."""
        self.events.append(outcome)

    @property
    def bodies(self) -> list[bytes]:
        """What has arrived."""
        return [each.data for each in self.deliveries]


class Peer:
    """A client, and the endpoint behind the connection that it talks to.

    A link to the address `later` is answered when a test calls `accept`; one to `unknown` is
    refused.
    """

    def __init__(
        self, connection: Connection | None = None, *, limits: Limits = AUTHORIZED
    ) -> None:
        self.credentials: Credentials | None = None
        self.refuses = False
        self.challenges: list[bytes] = []
        self.responses: list[bytes] = []
        self.node = Node()
        self.links: list[IncomingLink | OutgoingLink] = []
        self.credit, self.max_message_size = 10, 100_000
        self.now, self.wakes, self.closes = 1000.0, 0, 0
        self.opens: list[Open] = []
        self.on_open: AmqpError | None = None
        self.connection = connection or Connection(
            self, "hub", self.now, wake=self.wake, limits=limits
        )
        self._frames = frame.FrameBuffer()

    def wake(self) -> None:
        """Count the calls."""
        self.wakes += 1

    # --- the endpoint

    def authenticate(self, credentials: Credentials) -> Answer:
        """See `Authenticator.authenticate`."""
        self.credentials = credentials
        return self.challenges.pop(0) if self.challenges else not self.refuses

    def respond(self, response: bytes) -> Answer:
        """See `Authenticator.respond`."""
        self.responses.append(response)
        return self.challenges.pop(0) if self.challenges else not self.refuses

    def opened(self, peer: Open) -> None:
        """See `Endpoint.opened`."""
        self.opens.append(peer)
        if self.on_open:
            raise self.on_open

    def attach(self, link: IncomingLink | OutgoingLink) -> None:
        """See `Endpoint.attach`."""
        self.links.append(link)
        if link.address == "unknown":
            raise AmqpError("amqp:not-found", "Unknown node")
        if link.address != "later":
            self.accept(link)

    def accept(self, link: IncomingLink | OutgoingLink, **answer: Any) -> None:
        """Attach a link to the node."""
        if isinstance(link, IncomingLink):
            link.accept(self.node, credit=self.credit, max_message_size=self.max_message_size)
        else:
            self.node.link = link
            link.accept(self.node, **answer)

    def rest(self) -> None:
        """See `Endpoint.rest`."""

    def closed(self) -> None:
        """See `Endpoint.closed`."""
        self.closes += 1

    @property
    def outgoing(self) -> OutgoingLink:
        """The link that was attached last."""
        link = self.links[-1]
        assert isinstance(link, OutgoingLink)
        return link

    # --- the client

    def send(self, data: bytes) -> None:
        """Send bytes."""
        for _ in self.connection.receive(data, self.now):
            pass

    def begin(self, *lines: str, window: int = 10_000, **fields: Any) -> Peer:
        """Open the connection and a session on channel 0; then play a transcript."""
        self.send(frame.AMQP_HEADER + frame.write(0, Open("peer", **fields)))
        self.send(frame.write(0, performatives.Begin(None, 0, window, 100)))
        assert self.take_bytes(8) == frame.AMQP_HEADER
        assert [type(self.take()[1]).__name__ for _ in range(2)] == ["Open", "Begin"]
        self.play(*lines)
        return self

    def take_bytes(self, count: int) -> bytes:
        """Take bytes that the connection has sent."""
        assert count == 8
        self._frames.append(self.connection.data_to_send())
        header = self._frames.header()
        assert header is not None, "nothing was sent"
        return header

    def take(self, kind: int = frame.AMQP) -> Frame:
        """Take a frame that the connection has sent."""
        found = self.take_if_any(kind)
        assert found is not None, f"nothing was sent; {self.connection.error}"
        return found

    def take_if_any(self, kind: int = frame.AMQP) -> Frame | None:
        """Take a frame, or None if the connection has sent no more."""
        self._frames.append(self.connection.data_to_send())
        return self._frames.frame(kind, 2**32)

    def expect_nothing(self) -> None:
        """The connection has sent nothing more."""
        found = self.take_if_any()
        assert found is None, found

    def expect_closed(self, condition: str | None = None) -> None:
        """The connection has sent a close with this condition, as its last frame."""
        found = self.take()
        while isinstance(found[1], performatives.Flow | performatives.Disposition):
            found = self.take()
        close = found[1]
        assert isinstance(close, performatives.Close), close
        assert (close.error.condition if close.error else None) == condition
        self.expect_nothing()
        assert self.connection.closed
        assert self.closes == (self.connection.endpoint is self)

    def play(self, *transcript: str) -> None:
        """Go through a transcript; afterwards, the connection has nothing more to send."""
        for line in filter(None, map(str.strip, "\n".join(transcript).splitlines())):
            direction, channel, *rest = line.split(" ", 2)
            if line == "<< CLOSED":
                self.expect_nothing()
                assert self.connection.closed
            elif line == "<< EMPTY":
                assert self.take() == (0, None, b"")
            elif direction == ">>":
                self.expect_nothing()
                performative, payload = _evaluate(rest[0])
                self.send(write(int(channel), performative, payload))
            else:
                assert direction == "<<", line
                _compare(self.take(), int(channel), rest[0])
        self.expect_nothing()


def write(channel: int, performative: Any, payload: bytes = b"") -> bytes:
    """Write a frame with a payload."""
    body = performative.to_bytes() + payload
    return (len(body) + 8).to_bytes(4, "big") + b"\2\0" + channel.to_bytes(2, "big") + body


def transfer(number: int, payload: bytes = b"m", handle: int = 0, **fields: Any) -> bytes:
    """Write a transfer on channel 0, with a delivery id and a tag."""
    return write(0, Transfer(handle, number, b"%d" % number, 0, **fields), payload)


def _evaluate(text: str) -> tuple[Any, bytes]:
    expression, _, payload = text.partition(" + ")
    value = eval(expression, dict(_NAMES))
    return value, eval(payload) if payload else b""


def _compare(actual: Frame, channel: int, text: str) -> None:
    expression, _, payload = text.partition(" + ")
    name, _, arguments = expression.partition("(")
    fields = eval(f"dict({arguments}", dict(_NAMES))
    assert actual[0] == channel, actual
    assert type(actual[1]).__name__ == name, f"{actual[1]}, not {text}"
    found = {key: getattr(actual[1], key) for key in fields}
    assert found == fields, f"{actual[1]}, not {text}"
    assert actual[2] == (eval(payload) if payload else b""), actual


# What the links of SENDS and RECEIVES hold, in bytes.
SENDS_HOLDS = len(write(0, Attach("in", 0, SENDER, target=Target("x"))))
RECEIVES_HOLDS = len(write(0, Attach("out", 0, RECEIVER, source=Source("x"))))
