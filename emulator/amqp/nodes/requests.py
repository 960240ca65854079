"""Nodes of requests and replies: `$cbs` and `$management`.

A client attaches a link in each direction. A reply goes to the link whose target is the `reply-to`
of the request (@azure/event-hubs), or else to the client's newest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingDelivery, IncomingLink
from emulator.amqp.message import Message, Value
from emulator.amqp.nodes.node import AnyNode, Callers, LinkRequest, Receives, Sends
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import Properties, Target
from emulator.amqp.types import Int, Symbol
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import HubError

# How many requests can be on their way, and the size of one with a token.
_CREDIT = 100
_MAX_REQUEST_BYTES = 16 * 1024


class Reply(Struct, frozen=True):
    """A reply to a request.

    Args:
        body: a value of AMQP.
        status: as of HTTP.
        description: the status as text.
        condition: the condition of an error; "" for none.
    """

    body: Any = None
    status: int = 200
    description: str = "OK"
    condition: str = ""


Answer = Callable[[LinkRequest[IncomingLink], Message], Reply]


def request_nodes(
    path: str, operation: Operation, answer: Answer, callers: Callers, resource: Sequence[str] = ()
) -> tuple[AnyNode, ...]:
    """Return the nodes at a path that answer each request with a reply.

    Args:
        path: see `Node`.
        operation: see `Node`.
        answer: answers a request. What it raises as `HubError` becomes the status of the reply.
        callers: see `Node`.
        resource: see `Node`.
    """
    access = callers, resource
    return (
        Sends(path, operation, lambda request: _Requests(path, answer, request).accept(), *access),
        Receives(path, operation, lambda request: _Replies(path, request).accept(), *access),
    )


class _Requests:
    """The requests of a client."""

    def __init__(self, path: str, answer: Answer, request: LinkRequest[IncomingLink]) -> None:
        self._path = path
        self._answer = answer
        self._request = request

    def accept(self) -> None:
        self._request.link.accept(self, credit=_CREDIT, max_message_size=_MAX_REQUEST_BYTES)

    def on_message(self, delivery: IncomingDelivery) -> None:
        for message in delivery.messages():
            try:
                reply = self._answer(self._request, message)
            except HubError as error:
                condition = self._request.error(error).condition
                reply = Reply(None, error.status, error.text or error.name, condition)
            # uamqp reads a reply only behind the disposition of its request.
            delivery.settle()
            self._send(message, reply)

    def on_detached(self, error: AmqpError | None) -> None:
        pass

    def _send(self, message: Message, reply: Reply) -> None:
        links = self._request.client.repliers.get(self._path, [])
        session, to = self._request.link.session, message.properties.reply_to
        named = [link for link in links if to and _target(link) == to]
        near = [link for link in links if link.session is session]
        status = {"status-code": Int(reply.status), "status-description": reply.description}
        if reply.condition:  # @azure/event-hubs shows it
            status["error-condition"] = Symbol(reply.condition)
        # The same value is in the same type of AMQP.
        properties = Properties(correlation_id=message.properties.message_id)
        for link in named[:1] or near[-1:] or links[-1:]:
            link.send(Message(Value(reply.body), properties, status).to_bytes())


class _Replies:
    """A link on which a client receives replies."""

    def __init__(self, path: str, request: LinkRequest[OutgoingLink]) -> None:
        self._link = request.link
        self._links = request.client.repliers.setdefault(path, [])

    def accept(self) -> None:
        self._links.append(self._link)
        self._link.accept(self)

    def on_credit(self) -> None:
        pass

    def on_detached(self, error: AmqpError | None) -> None:
        self._links.remove(self._link)


def _target(link: OutgoingLink) -> Any:
    target = link.attach.target
    return target.address if isinstance(target, Target) else None
