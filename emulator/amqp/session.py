"""A session: its channel, its windows, its links, and the deliveries that are not settled.

Section numbers are those of AMQP 1.0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from emulator.amqp import frame
from emulator.amqp.composite import Composite
from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.incoming import IncomingDelivery, IncomingLink
from emulator.amqp.link import LinkState, raised
from emulator.amqp.outgoing import OutgoingDelivery, OutgoingLink
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Coordinator,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Outcome,
    Received,
    Rejected,
    Transfer,
)
from emulator.amqp.types import UINT_MAX

if TYPE_CHECKING:
    from emulator.amqp.connection import Connection

# How many frames the peer can send before it must wait for a flow. Ours: rhea has the same.
INCOMING_WINDOW = 2048

# Ours are handled when they are written: the window has no meaning here, and never closes.
_OUTGOING_WINDOW = 0x7FFF_FFFF

_FIRST_ID = 1

# How many outcomes of a session can be waited for: above this number, its links have no credit.
# Ours: @azure/event-hubs grants up to 1,700 at once.
UNSETTLED = 5_000


class Session:
    """One session of a connection, from the peer's begin on (section 2.5).

    Args:
        connection: the connection.
        channel: the channel, the same one both ways.
        begin: what the peer has sent.
    """

    def __init__(self, connection: Connection, channel: int, begin: Begin) -> None:
        self.connection = connection
        self.channel = channel
        self._links: dict[int, IncomingLink | OutgoingLink] = {}
        self._names: set[tuple[str, bool]] = set()
        self._next_incoming_id = begin.next_outgoing_id
        self._incoming_window = INCOMING_WINDOW
        self._next_outgoing_id = _FIRST_ID
        self.remote_window = begin.incoming_window
        """How many frames the peer takes."""
        self._next_delivery_id = 0
        self._incoming: dict[int, IncomingDelivery] = {}
        self._outgoing: dict[int, OutgoingDelivery] = {}
        self._waiting: dict[OutgoingLink, None] = {}  # links that can send more, in their order
        self.ended = False
        """Whether it has ended here; the peer's end can still come."""
        self.write(Begin(channel, self._next_outgoing_id, INCOMING_WINDOW, _OUTGOING_WINDOW))

    @property
    def links(self) -> list[IncomingLink | OutgoingLink]:
        """The links, those too that end."""
        return [*self._links.values()]

    def end(self, error: AmqpError) -> None:
        """End the session with an error; `on_detached` of its links is called."""
        if not self.ended:
            self.ended = True
            self.detach_links()
            self.lost(error)
            self.write(End(Error.of(error)))
            for _ in self.connection.end_links():
                pass

    def peer_ended(self, end: End) -> None:
        """Answer the peer's end (section 2.5.4)."""
        if not self.ended:
            self.detach_links()
            self.lost(raised(end.error))
            self.write(End())

    def detach_links(self) -> None:
        """Detach all links without a frame; their handlers are notified later."""
        state = LinkState.DETACHED
        for link in self._links.values():
            link.state = state

    def lost(self, error: AmqpError | None) -> None:
        """Note that the session or its connection has ended, after its links were detached.

        See `Connection.end_links`.
        """
        if self._links:
            links = deque(self._links.values())
            self.connection.end_soon(partial(_end_next, links, error))
        for each in (self._links, self._names, self._incoming, self._outgoing, self._waiting):
            each.clear()

    # --- what the peer sends

    def receive(self, performative: Composite, payload: bytes) -> None:
        """Take a frame of this session.

        Raises:
            AmqpError: the peer broke a rule.
        """
        match performative:
            case Transfer():
                self._transfer(performative, payload)
            case Disposition():
                self._disposition(performative)
            case Flow():
                self._flow(performative)
            case Attach():
                self._attach(performative)
            case Detach():
                link = self._link(performative.handle)
                self._names.discard((link.attach.name, link.role))
                del self._links[performative.handle]
                self.connection.remove_link(link.size)
                link.peer_detached(performative)

    def _link(self, handle: int) -> IncomingLink | OutgoingLink:
        link = self._links.get(handle)
        if link is None:
            raise AmqpError(Condition.UNATTACHED_HANDLE, f"Handle {handle} is not attached")
        return link

    def _attach(self, attach: Attach) -> None:
        """Take the peer's attach (section 2.6.3); the endpoint answers it."""
        link: IncomingLink | OutgoingLink
        link = (IncomingLink if attach.role == SENDER else OutgoingLink)(self, attach)
        name = (attach.name, link.role)
        if attach.handle in self._links:
            raise AmqpError(Condition.HANDLE_IN_USE, f"Handle {attach.handle} is in use")
        if name in self._names:
            raise AmqpError(Condition.NOT_ALLOWED, f"Link {attach.name[:64]!r} is attached already")
        self._links[attach.handle] = link
        self._names.add(name)
        self.connection.add_link(link.size)
        if isinstance(attach.target, Coordinator):
            link.drop(AmqpError(Condition.NOT_IMPLEMENTED, "Transactions are not supported"))
        elif error := link.guarded("attach", self.connection.endpoint.attach, link):
            link.drop(error)

    def _flow(self, flow: Flow) -> None:
        """Take the peer's windows (section 2.5.6), and what it says about a link."""
        known = _FIRST_ID if flow.next_incoming_id is None else flow.next_incoming_id
        on_the_way = (self._next_outgoing_id - known) & UINT_MAX
        if on_the_way > UINT_MAX >> 1:  # the peer is ahead of what was sent
            on_the_way = 0
        self.remote_window = max(0, flow.incoming_window - on_the_way)
        link = None if flow.handle is None else self._link(flow.handle)
        if link is not None and link.state is not LinkState.DETACHED:
            link.peer_flow(flow)
            if flow.echo and link.attached:
                link.write_flow()
        elif flow.echo:
            self.write_flow()
        self.pump()

    def _transfer(self, transfer: Transfer, payload: bytes) -> None:
        if not self._incoming_window:
            raise AmqpError(Condition.WINDOW_VIOLATION, "A transfer beyond the session's window")
        self._incoming_window -= 1
        self._next_incoming_id = (self._next_incoming_id + 1) & UINT_MAX
        link = self._link(transfer.handle)
        if not isinstance(link, IncomingLink):
            reason = f"A transfer on link {link.attach.name[:64]!r} of a receiver"
            raise AmqpError(Condition.NOT_ALLOWED, reason)
        if link.state is not LinkState.DETACHED:
            link.transfer(transfer, payload)
        if 2 * self._incoming_window <= INCOMING_WINDOW:
            self._incoming_window = INCOMING_WINDOW
            self.write_flow()

    def _disposition(self, disposition: Disposition) -> None:
        """Take states and settlements of deliveries (section 2.7.6)."""
        state, settled, first = disposition.state, disposition.settled, disposition.first
        if not settled and (state is None or isinstance(state, Received)):
            return  # not an outcome
        last = first if disposition.last is None else disposition.last
        outcome = None if isinstance(state, Received) else state
        if disposition.role == SENDER:
            if settled:
                for number in _in_range(self._incoming, first, last):
                    self._incoming.pop(number).settled = True
            return
        numbers = _in_range(self._outgoing, first, last)
        for number in numbers:
            delivery = self._outgoing.pop(number, None)
            if delivery is None or delivery.on_settled is None:  # a callback has ended the link
                continue
            delivery.link.unsettled -= 1
            error = delivery.link.guarded("outcome", delivery.on_settled, outcome)
            final = Rejected(Error.of(error)) if error else outcome
            if not settled and final is not None:
                self.connection.settle(self.channel, SENDER, number, final)
        has_others = len(numbers) <= (last - first) & UINT_MAX  # that no sender waits for
        if has_others and not settled and outcome is not None:
            self.write(Disposition(SENDER, first, last, True, outcome))
        self.pump()

    # --- deliveries

    def add_incoming(self, delivery: IncomingDelivery) -> None:
        """Note a delivery that is to be settled here.

        Raises:
            AmqpError: its id is in use.
        """
        number = delivery.delivery_id
        if number in self._incoming:
            raise AmqpError(Condition.NOT_ALLOWED, f"Delivery id {number} is in use")
        self._incoming[number] = delivery

    def settle_incoming(self, delivery: IncomingDelivery, outcome: Outcome) -> None:
        """Send the outcome of a delivery."""
        del self._incoming[delivery.delivery_id]
        self.connection.settle(self.channel, RECEIVER, delivery.delivery_id, outcome)

    def begin_outgoing(self, delivery: OutgoingDelivery) -> int:
        """Choose the id of a delivery, and note it if its sender waits for the outcome."""
        number = self._next_delivery_id
        self._next_delivery_id = (number + 1) & UINT_MAX
        if not delivery.settled and delivery.on_settled is not None:
            self._outgoing[number] = delivery
            delivery.link.unsettled += 1
        return number

    def forget_deliveries(self, link: IncomingLink | OutgoingLink) -> None:
        """Forget the deliveries of a link."""
        deliveries: dict[int, Any]
        deliveries = self._incoming if isinstance(link, IncomingLink) else self._outgoing
        for number in [key for key, each in deliveries.items() if each.link is link]:
            del deliveries[number]

    # --- what is sent

    @property
    def can_send(self) -> bool:
        """Whether a message can be sent, if its link has credit."""
        has_room = self.remote_window > 0 and len(self._outgoing) < UNSETTLED
        return has_room and not self.connection.congested

    def wait(self, link: OutgoingLink) -> None:
        """Note that a link can send more as soon as the session can."""
        self._waiting[link] = None

    def no_wait(self, link: OutgoingLink) -> None:
        """Note that a link does not wait any more."""
        self._waiting.pop(link, None)

    def pump(self) -> None:
        """Let links send that have waited, in turns: one that waits again is the last."""
        for link in [*self._waiting]:
            if not self.can_send:
                return
            link.pump()

    def write(self, performative: Composite) -> None:
        """Send a frame."""
        self.connection.write(frame.write(self.channel, performative))

    def write_transfer(
        self, handle: bytes, delivery: bytes | None, settled: bool, more: bool, payload: bytes
    ) -> None:
        """Send a transfer; see `frame.write_transfer`."""
        self.remote_window -= 1
        self._next_outgoing_id = (self._next_outgoing_id + 1) & UINT_MAX
        self.connection.write(
            frame.write_transfer(self.channel, handle, delivery, settled, more, payload)
        )

    def write_flow(
        self,
        handle: int | None = None,
        delivery_count: int | None = None,
        link_credit: int | None = None,
        available: int | None = None,
    ) -> None:
        """Send the state of the session, and of a link."""
        windows = self._next_incoming_id, self._incoming_window, self._next_outgoing_id
        self.write(Flow(*windows, _OUTGOING_WINDOW, handle, delivery_count, link_credit, available))


def _end_next(links: deque[IncomingLink | OutgoingLink], error: AmqpError | None) -> bool:
    links.popleft().end(error)
    return bool(links)


def _in_range(numbers: Mapping[int, object], first: int, last: int) -> list[int]:
    """List the ids from `first` to `last`, however wide that is, which are among `numbers`."""
    width = (last - first) & UINT_MAX
    if width < len(numbers):
        wanted = [(first + each) & UINT_MAX for each in range(width + 1)]
        return [each for each in wanted if each in numbers]
    return [each for each in numbers if (each - first) & UINT_MAX <= width]
