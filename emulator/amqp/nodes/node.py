"""A node: an address, the operation that the gate checks, and what takes the link."""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from msgspec import Struct

from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingLink
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.refusals import amqp_error
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import HubError
from emulator.hub.gate import Caller
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission

if TYPE_CHECKING:
    from emulator.amqp.client import Client


class Grant(Struct, frozen=True, gc=False):
    """What allows a link.

    Args:
        caller: the caller with the credentials that the gate took; None if none are needed.
        admission: of a device; None for other callers.
        expires: when the credentials expire, in seconds since the epoch.
    """

    caller: Caller | None = None
    admission: Admission | None = None
    expires: float = math.inf


L = TypeVar("L", IncomingLink, OutgoingLink)


class Callers(enum.Enum):
    """The kinds of callers of a node: they have different credentials."""

    ALL = enum.auto()  # needs no credentials
    SERVICES = enum.auto()  # a policy's token for the hub
    EVENT_HUBS = enum.auto()  # a policy's token for an `sb://` URI, as Event Hubs' clients send
    DEVICES = enum.auto()  # a token or a certificate; the address names the identity


class LinkRequest(Struct, Generic[L], eq=False):
    """A link that a peer asks for, and the way into the gate for all that comes over it.

    Args:
        client: the client at the other end of the connection.
        node: the node.
        link: the link, which the node accepts.
        names: the values of the names in the address: `{"device_id": "x"}`.
        resource: the address as decoded segments, without scheme and host.
        grant: what allows the link.
    """

    client: Client
    node: Node[Any]
    link: L
    names: Mapping[str, str]
    resource: Sequence[str]
    grant: Grant = Grant()

    @property
    def hub(self) -> IotHub:
        """The hub."""
        return self.client.hub

    @property
    def device(self) -> Admission:
        """The admission of the device, at a node of devices.

        Its `expires` need not be timed: the link is detached when no token of the connection is
        valid for it any more, and renewed tokens count.
        """
        return cast("Admission", self.grant.admission)

    def enter(
        self, operation: Operation | None = None, *, size: int = 0, flaw: HubError | None = None
    ) -> None:
        """Enter the gate with a message or a request that came over the link.

        Args:
            operation: the operation; None is that of the node.
            size: the size of the message in bytes.
            flaw: see `Gate.enter`.

        Raises:
            HubError
        """
        caller = cast("Caller | Admission", self.grant.admission or self.grant.caller)
        self.hub.gate.enter(caller, operation or self.node.operation, size=size, flaw=flaw)

    def error(self, error: HubError) -> AmqpError:
        """Return an error of the hub as AMQP has it: for `reject` and `detach`."""
        return amqp_error(error, self.hub.clock.now())

    @contextlib.contextmanager
    def amqp_errors(self) -> Iterator[None]:
        """Raise an `AmqpError` in place of a `HubError`: in `on_message` and `on_settled`."""
        try:
            yield
        except HubError as error:
            raise self.error(error) from error


class Node(Struct, Generic[L], frozen=True):
    """A node; one address can have a node for each direction.

    Args:
        path: a path such as `/devices/{device_id}/messages/events`; see `Router`. Scheme and host
            of an address, letter case, and a slash at its begin and its end are ignored.
        operation: the operation that a link is for. At the attach, the gate checks its right and
            does not charge it. `LinkRequest.enter` charges each message. A device's first link is
            charged as `CONNECT`, and its messages enter the gate with its admission.
        open: accepts the link, now or later. It raises `HubError` or `AmqpError` to refuse it.
        callers: the kind of callers.
        resource: what tokens must be for, where it is not the address.
    """

    path: str
    operation: Operation
    open: Callable[[LinkRequest[L]], None]
    callers: Callers = Callers.SERVICES
    resource: Sequence[str] = ()


class Sends(Node[IncomingLink], frozen=True):
    """A node to which the peer sends messages: it is the link's target."""


class Receives(Node[OutgoingLink], frozen=True):
    """A node from which the peer receives messages: it is the link's source."""


AnyNode = Sends | Receives
