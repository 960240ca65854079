"""Links by which a node here sends messages to a peer. Section numbers are those of AMQP 1.0."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from emulator.amqp.encoder import encode, encode_binary
from emulator.amqp.link import TAG_BYTES, Handler, Link, LinkState
from emulator.amqp.performatives import SENDER, SETTLED, Attach, Flow, Outcome
from emulator.amqp.types import UINT_MAX, UInt

if TYPE_CHECKING:
    from emulator.amqp.session import Session


class Sender(Handler, Protocol):
    """What an endpoint does with an `OutgoingLink`."""

    def on_credit(self) -> None:
        """Note that messages can be sent (see `OutgoingLink.credit`)."""


OnSettled = Callable[[Outcome | None], None]
"""Gets the peer's outcome of a delivery; None if the peer named none.

A peer that waits for our confirmation gets its own outcome, or rejected with what is raised.
"""


class OutgoingDelivery(Struct, eq=False):
    """A message to a peer, until the peer settles it."""

    link: OutgoingLink
    payload: bytes
    tag: bytes
    settled: bool
    on_settled: OnSettled | None
    offset: int = -1  # how much is sent; -1 before the first frame


class OutgoingLink(Link):
    """A link by which a node here sends messages to the peer."""

    role = SENDER

    def __init__(self, session: Session, attach: Attach) -> None:
        super().__init__(session, attach)
        self._handle = encode(UInt(attach.handle))
        self._credit = 0
        self._draining = False
        self._queue: deque[OutgoingDelivery] = deque()
        self._tags = 0
        self.has_more = False
        """Whether the sender sends more in a later turn: then a drain is not complete yet."""
        self.unsettled = 0
        """How many outcomes are waited for."""

    def accept(self, sender: Sender, *, offered_capabilities: tuple[str, ...] = ()) -> None:
        """Attach the link; ignored if it has ended meanwhile.

        Args:
            sender: what is called when messages can be sent.
            offered_capabilities: as in our attach.
        """
        if self.state is not LinkState.PENDING:
            return
        self.handler = sender
        self.state = LinkState.ATTACHED
        self._answer(offered_capabilities=offered_capabilities)
        if self._credit or self._draining:
            self.pump()

    @property
    def credit(self) -> int:
        """How many messages go out at once; the others wait in a queue, which is limited."""
        if self._queue or self.state is not LinkState.ATTACHED or not self._credit:
            return 0
        if not self.session.can_send:
            self.session.wait(self)
            return 0
        return self._credit

    def send(
        self, payload: bytes, tag: bytes | None = None, *, on_settled: OnSettled | None = None
    ) -> None:
        """Send a message; ignored if the link has ended.

        Args:
            payload: the message, encoded.
            tag: at most 32 bytes; a number if None.
            on_settled: called with the outcome. Without it, the outcome is not waited for:
                azure-eventhub never settles what it receives.
        """
        if self.state is not LinkState.ATTACHED:
            return
        if tag is None:
            self._tags = (self._tags + 1) & UINT_MAX
            tag = self._tags.to_bytes(4, "big")
        elif len(tag) > TAG_BYTES:
            raise ValueError(f"A delivery tag of {len(tag)} bytes: {TAG_BYTES} are allowed")
        settled = self.attach.snd_settle_mode == SETTLED
        delivery = OutgoingDelivery(self, payload, tag, settled, on_settled)
        if self._queue or not self._send(delivery):
            self._queue.append(delivery)
            self.session.wait(self)
            self.session.connection.queue(len(payload))

    def _send(self, delivery: OutgoingDelivery) -> bool:
        """Write the frames of a message, as many as the session's window has room for.

        Returns:
            whether all were written.
        """
        session = self.session
        head = None
        if delivery.offset < 0:
            if not self._credit or not session.can_send:
                return False
            self._credit -= 1
            self._delivery_count = (self._delivery_count + 1) & UINT_MAX
            delivery.offset = 0
            # Behind the id and the tag stands the format of the standard, 0.
            number = session.begin_outgoing(delivery).to_bytes(4, "big")
            head = b"\x70%b%b\x43" % (number, encode_binary(delivery.tag))
        payload, limit = delivery.payload, session.connection.payload_limit
        while session.remote_window > 0:
            start, delivery.offset = delivery.offset, delivery.offset + limit
            more = delivery.offset < len(payload)
            part = payload[start : delivery.offset]
            session.write_transfer(self._handle, head, delivery.settled, more, part)
            if not more:
                return True
            head = None
        return False

    def pump(self) -> None:
        """Send what waits, and let the sender send more."""
        self.session.no_wait(self)
        if self.state is not LinkState.ATTACHED:
            return
        while self._queue and self._send(self._queue[0]):
            self.session.connection.unbuffer(len(self._queue.popleft().payload))
        if self._queue:
            self.session.wait(self)
        elif self.credit and (error := self.guarded("credit", self.handler.on_credit)):
            self.drop(error)
        if self._draining and (not self._credit or (self.credit and not self.has_more)):
            self._draining = False
            self._delivery_count = (self._delivery_count + self._credit) & UINT_MAX
            self._credit = 0
            self.write_flow()

    def _release(self) -> None:
        self.session.connection.unbuffer(sum(len(each.payload) for each in self._queue))
        self.session.no_wait(self)
        self._queue.clear()
        self._credit = 0
        if self.unsettled:
            self.session.forget_deliveries(self)
            self.unsettled = 0

    # --- what the session calls

    def write_flow(self) -> None:
        """Send the state of the link: its count, and how many messages wait."""
        self.session.write_flow(
            self.attach.handle, self._delivery_count, self._credit, len(self._queue)
        )

    def peer_flow(self, flow: Flow) -> None:
        """Take the credit of the receiver: what it grants beyond its own count."""
        if flow.link_credit is not None:
            count = flow.delivery_count or 0
            ahead = (self._delivery_count - count) & UINT_MAX  # messages that were on their way
            self._credit = max(0, flow.link_credit - ahead) if ahead <= UINT_MAX >> 1 else 0
            self._draining = flow.drain
        self.pump()
