"""A link, in both directions: attached by the peer, accepted or refused here, at once or later.

Section numbers are those of AMQP 1.0.
"""

from __future__ import annotations

import enum
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.performatives import (
    FIRST,
    RECEIVER,
    SENDER,
    Attach,
    Detach,
    Error,
    Flow,
    Source,
    Target,
)

if TYPE_CHECKING:
    from emulator.amqp.session import Session

log = logging.getLogger(__name__)

TAG_BYTES = 32  # the longest delivery tag (section 2.8.7)


class LinkState(enum.Enum):
    """Where a link is in its life (section 2.6)."""

    PENDING = enum.auto()  # the peer has attached; the endpoint has not answered
    ATTACHED = enum.auto()
    DETACHED = enum.auto()  # here; what the peer sends is ignored until it detaches too


class Handler(Protocol):
    """What an endpoint does with a link."""

    def on_detached(self, error: AmqpError | None) -> None:
        """Note that the link has ended, by the peer, with its session or with its connection.

        What was not settled will not be settled any more.
        """


class Link(ABC):
    """What both directions of links share.

    Args:
        session: the session.
        attach: what the peer has sent.

    A link holds what the peer has sent in its attach: `size` is the size of that frame.
    """

    role: bool
    """Ours."""

    def __init__(self, session: Session, attach: Attach) -> None:
        self.session = session
        self.attach = attach
        self.size = session.connection.frame_size
        self.state = LinkState.PENDING
        self.handler: Any = None
        """A `Receiver` or a `Sender`, while the link is attached."""
        self.context: Any = None
        """What the endpoint keeps with the link, until it ends."""
        self._delivery_count = attach.initial_delivery_count or 0 if self.role == RECEIVER else 0

    @property
    def attached(self) -> bool:
        """Whether messages can be transferred."""
        return self.state is LinkState.ATTACHED

    @property
    def properties(self) -> dict[Any, Any]:
        """What the peer says about the link, by symbol."""
        return self.attach.properties or {}

    @property
    def address(self) -> str:
        """The address of the node here; empty if the peer has sent none, or no text."""
        end = self.attach.target if self.role == RECEIVER else self.attach.source
        address = end.address if isinstance(end, Source | Target) else None
        return address if isinstance(address, str) else ""

    def detach(self, error: AmqpError | None = None, *, closed: bool = True) -> None:
        """Close or refuse the link; ignored if it has ended. `on_detached` is not called.

        The standard refuses in two steps: an attach without the node's terminus, and a detach
        (section 2.6.3).
        """
        if self.state is LinkState.DETACHED:
            return
        if self.state is LinkState.PENDING:
            self._answer(terminus=False)
        self.state = LinkState.DETACHED
        self._release()
        self._take_handler()
        self.session.write(Detach(self.attach.handle, closed, Error.of(error)))

    def drop(self, error: AmqpError) -> None:
        """Close or refuse the link with an error, and notify its handler if it was attached."""
        if self.state is not LinkState.DETACHED:
            handler = self.handler
            self.detach(error)
            self._notify(handler, error)

    def _answer(
        self,
        *,
        terminus: bool = True,
        max_message_size: int | None = None,
        offered_capabilities: tuple[str, ...] = (),
    ) -> None:
        """Write our attach: what the peer asked for, except what is set here."""
        peer, sends = self.attach, self.role == SENDER
        self.session.write(
            Attach(
                peer.name,
                peer.handle,
                self.role,
                peer.snd_settle_mode,
                # Of an incoming link, the mode is ours. uamqp waits for a settled disposition.
                peer.rcv_settle_mode if sends else FIRST,
                peer.source if terminus or not sends else None,
                peer.target if terminus or sends else None,
                initial_delivery_count=0 if sends else None,
                max_message_size=max_message_size,
                offered_capabilities=offered_capabilities,
            )
        )

    # --- what the session calls

    def peer_detached(self, detach: Detach) -> None:
        """Answer the peer's detach (section 2.6.6)."""
        handler = self.handler
        self.detach(closed=detach.closed)
        self._notify(handler, raised(detach.error))

    def end(self, error: AmqpError | None) -> None:
        """Note that the session, which has detached the link, has ended."""
        self._release()
        self._notify(self._take_handler(), error)
        self.session.connection.remove_link(self.size)

    @abstractmethod
    def peer_flow(self, flow: Flow) -> None:
        """Take the part of a flow that is about this link (section 2.6.7)."""

    @abstractmethod
    def write_flow(self) -> None:
        """Send the state of the link."""

    @abstractmethod
    def _release(self) -> None:
        """Forget what is in flight."""

    def _take_handler(self) -> Handler | None:
        """Forget what stands behind the link: both hold each other, and would be garbage."""
        handler: Handler | None = self.handler
        self.handler = self.context = None
        return handler

    def _notify(self, handler: Handler | None, error: AmqpError | None) -> None:
        if handler is not None:
            self.guarded("end", handler.on_detached, error)

    def guarded(self, what: str, call: Callable[..., object], *args: object) -> AmqpError | None:
        """Call what stands behind the link; return what it raises, or None.

        An error that is not meant for the peer is logged.
        """
        try:
            call(*args)
        except AmqpError as error:
            return error
        except Exception:
            log.exception("The %r of link %r was not handled", what, self.attach.name)
            return AmqpError(Condition.INTERNAL_ERROR, f"The {what} was not handled")
        return None


def raised(error: Error | None) -> AmqpError | None:
    """Return the error of a detach or an end as an exception."""
    if error is None:
        return None
    return AmqpError(error.condition, error.description or "", error.info)
