"""Links by which a peer sends messages here. Section numbers are those of AMQP 1.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.link import TAG_BYTES, Handler, Link, LinkState
from emulator.amqp.message import Message, decode_messages
from emulator.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    Attach,
    Error,
    Flow,
    Outcome,
    Rejected,
    Transfer,
)
from emulator.amqp.types import UINT_MAX

if TYPE_CHECKING:
    from emulator.amqp.session import Session


class Receiver(Handler, Protocol):
    """What an endpoint does with the messages of an `IncomingLink`."""

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Take a message; the receiver settles it, now or later.

        Raises:
            AmqpError: the delivery is rejected with this error.
        """


class IncomingDelivery(Struct, eq=False):
    """A message from a peer, to be settled once; one that is pre-settled too: it needs credit.

    Args:
        data: the message, encoded.
        settled: whether the sender has settled it, so that no outcome is sent.
    """

    link: IncomingLink
    delivery_id: int
    tag: bytes
    message_format: int
    data: bytes = b""
    size: int = 0
    settled: bool = False
    done: bool = False

    def messages(self) -> list[Message]:
        """Decode the message, or the messages of a batch.

        Raises:
            AmqpError: they are malformed.
        """
        return decode_messages(self.data, self.message_format)

    def settle(self, outcome: Outcome = ACCEPTED) -> None:
        """Send an outcome to the peer, which is final; ignored the second time."""
        if not self.done:
            self.done = True
            self.link.settle(self, outcome)

    def reject(self, error: AmqpError) -> None:
        """Settle as invalid, with a condition and a description."""
        self.settle(Rejected(Error.of(error)))


class IncomingLink(Link):
    """A link by which the peer sends messages to a node here."""

    role = RECEIVER

    def __init__(self, session: Session, attach: Attach) -> None:
        super().__init__(session, attach)
        self._credit = 0
        self._window = 0
        self._max_message_size = 0
        self._unsettled = 0  # deliveries that the receiver has not settled
        self._held = 0  # their bytes, and those of an incomplete delivery
        self._current: IncomingDelivery | None = None  # a delivery that is incomplete
        self._parts = bytearray()

    def accept(self, receiver: Receiver, *, credit: int, max_message_size: int) -> None:
        """Attach the link; ignored if it has ended meanwhile.

        Args:
            receiver: what takes the messages.
            credit: how many messages can be on their way or not settled; renewed by itself.
            max_message_size: in bytes, encoded; the link ends at a larger message.
        """
        if self.state is not LinkState.PENDING:
            return
        self.handler = receiver
        self._window = credit
        self._max_message_size = max_message_size
        self.state = LinkState.ATTACHED
        self._answer(max_message_size=max_message_size)
        self._renew_credit()

    def settle(self, delivery: IncomingDelivery, outcome: Outcome) -> None:
        """Send the outcome of a delivery, and new credit. See `IncomingDelivery.settle`."""
        if self.state is not LinkState.ATTACHED:
            return
        self._unsettled -= 1
        self._unhold(delivery.size)
        if not delivery.settled:
            self.session.settle_incoming(delivery, outcome)
        self._renew_credit()

    def _renew_credit(self) -> None:
        """Grant what the window allows, if that is half of the window or more."""
        free = self._window - self._unsettled - self._credit
        if free > 0 and 2 * free >= self._window:
            self._credit += free
            self.write_flow()

    def _unhold(self, size: int) -> None:
        self._held -= size
        self.session.connection.unbuffer(size)

    def _release(self) -> None:
        self._unhold(self._held)
        self._end_delivery()
        if self._unsettled:
            self.session.forget_deliveries(self)

    # --- what the session calls

    def write_flow(self) -> None:
        """Send the state of the link, with its credit."""
        self.session.write_flow(self.attach.handle, self._delivery_count, self._credit)

    def peer_flow(self, flow: Flow) -> None:
        """Take the sender's count: it counts further than it sends if it gives credit back."""
        if flow.delivery_count is not None:
            skipped = (flow.delivery_count - self._delivery_count) & UINT_MAX
            if skipped <= self._credit and self._current is None:
                self._delivery_count = flow.delivery_count
                self._credit -= skipped

    def transfer(self, transfer: Transfer, payload: bytes) -> None:
        """Take a message, or a part (section 2.7.5).

        Raises:
            AmqpError: the peer broke a rule.
        """
        delivery = self._current
        if delivery is None:
            delivery = self._current = self._begin(transfer)
        elif transfer.delivery_id not in (None, delivery.delivery_id) or (
            transfer.delivery_tag not in (None, delivery.tag)
        ):
            reason = "A delivery begins before the last one is complete"
            raise AmqpError(Condition.NOT_ALLOWED, reason)
        if transfer.settled:
            delivery.settled = True
        if transfer.aborted:  # the frames so far are discarded
            self._end_delivery()
            self._unhold(delivery.size)
            self._renew_credit()
            return
        delivery.size += len(payload)
        self._held += len(payload)
        self.session.connection.buffer(len(payload))
        if delivery.size > self._max_message_size:
            reason = f"A message has more than {self._max_message_size} bytes"
            self.drop(AmqpError(Condition.MESSAGE_SIZE_EXCEEDED, reason))
        elif transfer.more:
            self._parts += payload
        else:
            delivery.data = bytes(self._parts + payload) if self._parts else payload
            self._end_delivery()
            self._deliver(delivery)

    def _end_delivery(self) -> None:
        self._current = None
        self._parts.clear()

    def _begin(self, transfer: Transfer) -> IncomingDelivery:
        if transfer.delivery_id is None or transfer.delivery_tag is None:
            raise AmqpError(Condition.INVALID_FIELD, "A delivery without an id or a tag")
        if (size := len(transfer.delivery_tag)) > TAG_BYTES:
            reason = f"A delivery tag of {size} bytes: {TAG_BYTES} are allowed"
            raise AmqpError(Condition.INVALID_FIELD, reason)
        if not self._credit:
            reason = f"Link {self.attach.name[:64]!r} has no credit"
            raise AmqpError(Condition.TRANSFER_LIMIT_EXCEEDED, reason)
        self._credit -= 1
        self._delivery_count = (self._delivery_count + 1) & UINT_MAX
        return IncomingDelivery(
            self, transfer.delivery_id, transfer.delivery_tag, transfer.message_format or 0
        )

    def _deliver(self, delivery: IncomingDelivery) -> None:
        self._unsettled += 1
        if not delivery.settled:
            self.session.add_incoming(delivery)
        if error := self.guarded("message", self.handler.on_message, delivery):
            delivery.reject(error)
