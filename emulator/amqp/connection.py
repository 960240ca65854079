"""A connection as AMQP's server has it: bytes in; bytes, and calls on an endpoint, out.

It does no I/O and has no clock. The I/O side passes what arrives to `receive`, and calls `tick` at
`next_deadline`, and `drained` when the peer has read what was sent. Behind each of these calls, and
when it is woken, it sends what `data_to_send` returns, and looks whether the connection is
`closed`.
Section numbers are those of AMQP 1.0.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol

from emulator.amqp import frame, sasl
from emulator.amqp.composite import Composite
from emulator.amqp.errors import AmqpError, Condition, UnknownHeader
from emulator.amqp.incoming import IncomingLink
from emulator.amqp.limits import AUTHORIZED, UNAUTHORIZED, Limits
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import (
    Accepted,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Error,
    Open,
    Outcome,
    SaslMechanisms,
    SaslOutcome,
)
from emulator.amqp.session import Session
from emulator.amqp.types import UINT_MAX

log = logging.getLogger(__name__)

# The largest frame before the peer's open has arrived. The standard has 512 (section 2.4.1), which
# a SAS token in PLAIN can exceed.
_FIRST_FRAME_BYTES = 8 * 1024

# The largest frames that the peer may send, and that are sent, whatever the peer takes.
_FRAME_BYTES = 64 * 1024

# In milliseconds; what the peer is told (seen on a real hub).
_IDLE_TIME_OUT = 240_000

# A message, and the outcome of another one.
_SHORT = 2

# Ours: so many links end at once, which takes about as long as a turn.
_AT_ONCE = 64

# A silent peer is disconnected after twice the time-out that it was told (section 2.4.5). uamqp
# sends an empty frame every 120 s, whatever it was told.
_SILENCE = 2 * _IDLE_TIME_OUT / 1000

# Empty frames are not sent faster than this, in seconds.
_MIN_BEAT = 0.5


class Endpoint(sasl.Authenticator, Protocol):
    """What is behind a connection."""

    def opened(self, peer: Open) -> None:
        """Take the peer's open.

        Raises:
            AmqpError: the connection is closed with it.
        """

    def attach(self, link: IncomingLink | OutgoingLink) -> None:
        """Accept or refuse a link, now or later.

        Raises:
            AmqpError: the link is refused with it.
        """

    def rest(self) -> None:
        """Do what was put off until the frames that came together were handled."""

    def closed(self) -> None:
        """Note that the connection has ended; all links have been detached."""


class _State(enum.Enum):
    HEADER = enum.auto()  # a protocol header must come (section 2.2)
    SASL = enum.auto()  # a SASL init or response must come (section 5.3.2)
    HEADER_AGAIN = enum.auto()  # SASL has ended; the header of AMQP must come
    OPENING = enum.auto()  # an open must come (section 2.4.1)
    OPEN = enum.auto()
    CLOSED = enum.auto()


class Connection:
    """One connection, from the peer's first byte on.

    Args:
        endpoint: what decides about links.
        container_id: the name of this server.
        now: the time, in seconds of a clock that never goes back.
        wake: called once when bytes begin to wait, or the connection ends, outside of the calls of
            the I/O side. It can be called inside `send` and the like: best to write a little later.
        mechanisms: of SASL, that are offered to the peer.
        limits: while the peer has shown no right to anything: see `authorized`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        container_id: str,
        now: float,
        *,
        wake: Callable[[], None] = lambda: None,
        mechanisms: tuple[str, ...] = sasl.MECHANISMS,
        limits: Limits = UNAUTHORIZED,
    ) -> None:
        self.endpoint = endpoint
        self._mechanisms = mechanisms
        self._exchange = sasl.Exchange(endpoint, mechanisms)
        self.error: AmqpError | None = None
        """Why the connection was closed here, for the log."""
        self.payload_limit = 0
        """How many bytes of a message fit in a frame."""
        self.congested = False
        """Whether much waits for the peer to read it."""
        self.links = 0
        """How many links there are, in all sessions."""
        self._open = Open(container_id, max_frame_size=_FRAME_BYTES, idle_time_out=_IDLE_TIME_OUT)
        self._wake = wake
        self._state = _State.HEADER
        self._buffer = frame.FrameBuffer()
        self._frame_limit = _FIRST_FRAME_BYTES
        self._sessions: dict[int, Session] = {}
        self._ending: deque[Callable[[], object]] = deque()
        self._output: list[bytes] = []
        self._settled: tuple[int, bool, int, int, Outcome] | None = None
        self._woken = False  # the I/O side knows that bytes wait
        self._undrained = 0
        self._buffered = 0
        self._heard = now
        self._beat = float("inf")  # when the next empty frame is due
        self._beat_seconds = float("inf")
        self._limits = self._first_limits = limits
        self._authorize_by = now + limits.seconds

    # --- what the I/O side calls

    @property
    def closed(self) -> bool:
        """Whether the connection has ended: what waits is to be sent, and the socket closed."""
        return self._state is _State.CLOSED

    def is_short(self, data: bytes) -> bool:
        """Return whether bytes that have arrived are little work: a frame or two.

        An end of a session with many links is more.
        """
        return self.links <= _AT_ONCE and self._buffer.are_few(data, _SHORT)

    def receive(self, data: bytes, now: float) -> Iterator[None]:
        """Take bytes, in pieces of any size: a frame at each step, so that the I/O side paces them.

        Whatever the bytes are, nothing is raised: a peer that breaks a rule has its connection
        closed, with `error`.
        """
        if self._state is _State.CLOSED:
            return
        self._heard = now
        self._woken = True
        try:
            self._buffer.append(data)
            while not self.closed and self._take_next():
                yield
                if self._ending:
                    yield from self.end_links()
            self.endpoint.rest()
        except AmqpError as error:
            self.close(error)
        except Exception:
            log.exception("A frame was not handled")
            self.close(AmqpError(Condition.INTERNAL_ERROR, "A frame was not handled"))

    def data_to_send(self) -> bytes:
        """Take the bytes that wait to be sent."""
        self._write_settled()
        data = b"".join(self._output)
        self._output.clear()
        self._woken = False
        return data

    def drained(self) -> None:
        """Note that the peer has read most of what was sent: now links can send more.

        To be called again for as long as the connection is `congested`.
        """
        self._undrained = 0
        if self.congested:
            self.congested = False
            self._woken = True
            for channel, session in [*self._sessions.items()]:
                if self.congested:
                    break
                if self._sessions.pop(channel, None):  # its next turn is the last
                    self._sessions[channel] = session
                session.pump()

    def lost(self) -> None:
        """Note that the connection has ended without a close."""
        self._end(None)

    @property
    def is_ending(self) -> bool:
        """Whether handlers are to be notified: see `end_links`."""
        return bool(self._ending)

    def end_links(self) -> Iterator[None]:
        """Notify the handlers of links whose session or connection has ended, one at each step.

        These links are detached: nothing is sent on them. The I/O side does this in its turns when
        the connection is `closed`. The steps can be shared by several callers.
        """
        while self._ending:
            step = self._ending.popleft()
            if step():
                self._ending.appendleft(step)
            yield

    def next_deadline(self) -> float:
        """Return when `tick` is to be called; earlier than before only after an open or a wake."""
        return min(self._heard + _SILENCE, self._beat, self._authorize_by)

    def tick(self, now: float) -> None:
        """Do what is due: send an empty frame, or close a connection that took too long."""
        if self._state is _State.CLOSED:
            return
        if now >= self._authorize_by:
            self.close(AmqpError(Condition.UNAUTHORIZED_ACCESS, "No link was authorized in time"))
        elif now >= self._heard + _SILENCE:
            reason = f"Nothing arrived for {_SILENCE:g} s"
            self.close(AmqpError(Condition.CONNECTION_FORCED, reason))
        elif now >= self._beat:
            self._beat = now + self._beat_seconds
            self._woken = True
            self.write(frame.EMPTY)

    # --- what the endpoint calls

    def all_links(self) -> list[IncomingLink | OutgoingLink]:
        """Return the links of all sessions, those too that end."""
        return [link for session in self._sessions.values() for link in session.links]

    def authorized(self) -> None:
        """Change the limits, as the peer has shown that it may do something."""
        self._limits = AUTHORIZED
        self._authorize_by = float("inf")

    def unauthorized(self, now: float) -> None:
        """Go back to the first limits: what the peer may do has ended.

        What it has taken up beyond them stays until the connection closes.
        """
        self._limits = self._first_limits
        self._authorize_by = now + self._limits.seconds
        self._wake_once()  # the next deadline can be earlier

    def close(self, error: AmqpError | None = None) -> None:
        """Close the connection, with an error or without.

        The peer's own close is not waited for.
        """
        if self._state is _State.OPENING:
            self.write(frame.write(0, self._open))  # a close comes behind an open (section 2.4.3)
        if self._state in (_State.OPENING, _State.OPEN):
            self.write(frame.write(0, Close(Error.of(error))))
        if self._state is not _State.CLOSED:
            self.error = error
        self._end(error)

    # --- what sessions and links call

    def end_soon(self, step: Callable[[], bool]) -> None:
        """Note what `end_links` calls next, for as long as it returns True."""
        self._ending.appendleft(step)

    def write(self, data: bytes) -> None:
        """Send a frame behind all that was sent before."""
        if self._state is _State.CLOSED:
            return
        self._write_settled()
        self._append(data)

    def settle(self, channel: int, role: bool, delivery_id: int, outcome: Outcome) -> None:
        """Send a settled disposition; those of accepted messages in a row become one.

        A frame that is written later is sent later: uamqp reads a reply on `$cbs` only behind the
        disposition of its request.
        """
        if self._state is _State.CLOSED:
            return
        if self._settled is not None:
            *where, first, last, before = self._settled
            if (
                delivery_id == (last + 1) & UINT_MAX
                and where == [channel, role]
                and type(before) is type(outcome) is Accepted
            ):
                self._settled = channel, role, first, delivery_id, outcome
                return
            self._write_settled()
        self._settled = channel, role, delivery_id, delivery_id, outcome
        self._wake_once()

    @property
    def frame_size(self) -> int:
        """The size of the frame that is handled, in bytes."""
        return self._buffer.size

    def buffer(self, size: int) -> None:
        """Note bytes of a message that has arrived.

        Raises:
            AmqpError: there are too many.
        """
        self._buffered += size
        allowed = self._limits.buffered_bytes
        if self._buffered > allowed:
            reason = f"Links and messages hold {self._buffered} bytes: {allowed} are allowed"
            raise AmqpError(Condition.RESOURCE_LIMIT_EXCEEDED, reason)

    def unbuffer(self, size: int) -> None:
        """Note that bytes of messages were dropped."""
        self._buffered -= size

    def queue(self, size: int) -> None:
        """Note bytes of a message that waits for credit; too many close the connection."""
        try:
            self.buffer(size)
        except AmqpError as error:
            self.close(error)

    def add_link(self, size: int) -> None:
        """Note a link, and the bytes that it holds.

        Raises:
            AmqpError: there are too many.
        """
        self.links += 1
        self.buffer(size)
        if self.links > self._limits.links:
            reason = f"More than {self._limits.links} links"
            raise AmqpError(Condition.RESOURCE_LIMIT_EXCEEDED, reason)

    def remove_link(self, size: int) -> None:
        """Note that a link has ended."""
        self.links -= 1
        self.unbuffer(size)

    # ---

    def _append(self, data: bytes) -> None:
        self._output.append(data)
        self._undrained += len(data)
        if self._undrained > self._limits.sent_bytes:
            self.congested = True
        self._wake_once()

    def _wake_once(self) -> None:
        if not self._woken:
            self._woken = True
            self._wake()

    def _write_settled(self) -> None:
        if self._settled is None:
            return
        channel, role, first, last, outcome = self._settled
        self._settled = None
        self._append(frame.write(channel, Disposition(role, first, last, True, outcome)))

    def _end(self, error: AmqpError | None) -> None:
        if self._state is _State.CLOSED:
            return
        self._write_settled()
        self._state = _State.CLOSED
        for session in self._sessions.values():
            session.detach_links()
        self._ending.extend(partial(each.lost, error) for each in self._sessions.values())
        self._ending.append(self.endpoint.closed)
        self._sessions.clear()
        for _ in islice(self.end_links(), _AT_ONCE):
            pass
        self._wake_once()

    def _take_next(self) -> bool:
        """Take the next header or frame; returns whether it had arrived."""
        if self._state in (_State.HEADER, _State.HEADER_AGAIN):
            header = self._buffer.header()
            if header is None:
                return False
            self._take_header(header)
            return True
        kind = frame.SASL if self._state is _State.SASL else frame.AMQP
        found = self._buffer.frame(kind, self._frame_limit)
        if found is None:
            return False
        channel, performative, payload = found
        if performative is None:
            pass  # an empty frame
        elif self._state is _State.OPEN:
            self._take(channel, performative, payload)
        elif self._state is _State.SASL:
            self._take_sasl(performative)
        else:
            self._take_open(performative)
        return True

    def _take_header(self, header: bytes) -> None:
        """Answer a protocol header; an unknown one with the right one (section 2.2)."""
        if header == frame.AMQP_HEADER:
            self._state = _State.OPENING
            self.write(header)
        elif header == frame.SASL_HEADER and self._state is _State.HEADER:
            self._state = _State.SASL
            self.write(header + frame.write(0, SaslMechanisms(self._mechanisms), frame.SASL))
        else:
            self.write(frame.AMQP_HEADER)
            self.close(UnknownHeader(header))

    def _take_sasl(self, performative: Composite) -> None:
        answer = self._exchange.take(performative)
        self.write(frame.write(0, answer, frame.SASL))
        if isinstance(answer, SaslOutcome):
            self._state = _State.HEADER_AGAIN
            if answer.code != sasl.OK:
                error = AmqpError(Condition.UNAUTHORIZED_ACCESS, "The credentials were refused")
                self.close(error)

    def _take_open(self, peer: Composite) -> None:
        if not isinstance(peer, Open):
            raise AmqpError(Condition.NOT_ALLOWED, f"{peer.NAME} in place of an open")
        least = frame.MIN_MAX_FRAME_SIZE
        if peer.max_frame_size < least:
            reason = f"A max-frame-size of {peer.max_frame_size} bytes: {least} are the least"
            raise AmqpError(Condition.INVALID_FIELD, reason)
        self.payload_limit = min(peer.max_frame_size, _FRAME_BYTES) - frame.TRANSFER_OVERHEAD
        self._frame_limit = _FRAME_BYTES
        if peer.idle_time_out:
            self._beat_seconds = max(peer.idle_time_out / 2000, _MIN_BEAT)
            self._beat = self._heard + self._beat_seconds
        self.endpoint.opened(peer)
        if self._state is _State.OPENING:
            self._state = _State.OPEN
            self.write(frame.write(0, self._open))

    def _take(self, channel: int, performative: Composite, payload: bytes) -> None:
        """Take a frame of an open connection.

        Raises:
            AmqpError: the peer broke a rule.
        """
        session = self._sessions.get(channel)
        if isinstance(performative, Detach | End | Close):
            self.endpoint.rest()  # outcomes go out before the end
        if isinstance(performative, Close):
            self.close()
        elif isinstance(performative, Open):
            raise AmqpError(Condition.ILLEGAL_STATE, "The connection is open already")
        elif isinstance(performative, Begin):
            if session is not None:
                raise AmqpError(Condition.NOT_ALLOWED, f"Channel {channel} has a session already")
            self._begin(channel, performative)
        elif session is None:
            # azure-eventhub ends a session and detaches its links after that. @azure/event-hubs
            # accepts messages after that.
            if not isinstance(performative, Detach | End | Disposition):
                raise AmqpError(Condition.NOT_ALLOWED, f"Channel {channel} has no session")
        elif isinstance(performative, End):
            session.peer_ended(performative)
            self._sessions.pop(channel, None)
        elif not session.ended:
            session.receive(performative, payload)

    def _begin(self, channel: int, begin: Begin) -> None:
        if begin.remote_channel is not None:
            raise AmqpError(Condition.NOT_ALLOWED, "A begin that answers no begin of this server")
        if len(self._sessions) >= self._limits.sessions:
            reason = f"More than {self._limits.sessions} sessions"
            raise AmqpError(Condition.RESOURCE_LIMIT_EXCEEDED, reason)
        self._sessions[channel] = Session(self, channel, begin)
