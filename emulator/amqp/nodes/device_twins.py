"""Pairs of links by which devices and modules read their twin, report, and are notified.

A request has the annotations `operation`, `resource` and `version`. Its reply has the annotations
`status` and `version`, and the request's correlation id (SDKs for Node, C# and Java).
"""

from __future__ import annotations

import logging
from typing import Any

from emulator.amqp.incoming import IncomingDelivery
from emulator.amqp.message import Message
from emulator.amqp.nodes.device import Device, DeviceHandler, device_nodes
from emulator.amqp.nodes.messages import body_bytes
from emulator.amqp.nodes.node import LinkRequest, Receives, Sends
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Int
from emulator.hub.access.operations import Operation
from emulator.hub.core import errors
from emulator.hub.core.json import dumps
from emulator.hub.core.printable import printable
from emulator.hub.twins import writes

log = logging.getLogger(__name__)

_REPORTED = "/properties/reported"
_NOTIFICATIONS = "/notifications/twin/properties/desired"
_DESIRED = "/properties/desired"  # the resource of a notification (Java SDK)

# A status, a version and a body.
_Reply = tuple[int, int | None, bytes]


class _TwinLink(DeviceHandler):
    """A link of a pair."""

    def begin(self) -> None:
        """See `DeviceHandler.begin`."""
        self.device.twins.add(self)

    def end(self) -> None:
        """See `DeviceHandler.end`."""
        self.device.twins.remove(self)


class TwinReplies(_TwinLink):
    """A link of a device that receives replies and notifications."""

    def __init__(self, device: Device, request: LinkRequest[Any]) -> None:
        super().__init__(device, request)
        self.notifies = False
        """Whether the device asked for changes of its desired properties."""

    def reply(self, request: Message, reply: _Reply) -> None:
        """Send a reply; without credit, it waits for it."""
        status, version, body = reply
        annotations: dict[Any, Any] = {"status": Int(status)}
        if version is not None:
            annotations["version"] = version
        # The same value is in the same type of AMQP.
        properties = Properties(correlation_id=request.properties.correlation_id)
        message = Message(body, properties, message_annotations=annotations)
        self.link.send(message.to_bytes())

    def notify(self, patch: bytes, version: int) -> None:
        """Send a change of the desired properties: a message without a correlation id."""
        if self.notifies:
            annotations = {"resource": _DESIRED, "version": version}
            self.link.send(Message(patch, message_annotations=annotations).to_bytes())


class TwinRequests(_TwinLink):
    """A link of a device that sends requests."""

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Answer a request; a request without a correlation id gets no reply."""
        self.device.hub.links.note_activity(self.device.key)
        self.request.client.rest()  # telemetry that came before is in the log before a change
        for message in delivery.messages():
            reply = self._answer(message)
            delivery.settle()
            replies = self.device.twins.partner(self)
            if message.properties.correlation_id is not None and replies is not None:
                replies.reply(message, reply)

    def _answer(self, message: Message) -> _Reply:
        try:
            return self._carry_out(message)
        except errors.HubError as error:
            return self._failure(error)
        except Exception:
            log.exception("A twin request of %s failed", printable(self.device.key))
            return self._failure(errors.ServerError())

    def _carry_out(self, message: Message) -> _Reply:
        annotations, key = message.message_annotations, self.device.key
        operation, resource = annotations.get("operation"), annotations.get("resource")
        match operation, resource:
            case "GET", _:
                self.request.enter(Operation.READ_OWN_TWIN)
                return 200, None, dumps(self.device.hub.twins.read_own(key))
            case "PATCH", str() if resource == _REPORTED:
                version = annotations.get("version")  # C# sends null
                text = None if version is None else str(version)
                patch, expected = writes.parse_report(body_bytes(message), text)
                self.request.enter(Operation.REPORT)
                return 204, self.device.hub.twins.report(key, patch, expected), b""
            case (("PUT" | "DELETE"), str()) if resource == _NOTIFICATIONS:
                self.request.enter(Operation.SUBSCRIBE)
                if (replies := self.device.twins.partner(self)) is not None:
                    replies.notifies = operation == "PUT"
                return 200, None, b""
        raise errors.ArgumentInvalid(f"Unknown request: {operation} {resource}")

    def _failure(self, error: errors.HubError) -> _Reply:
        # The SDK for Node parses the body of a failure.
        document = errors.error_document(error, self.device.hub.clock.now())
        return error.status, None, dumps(document)


NODES = (
    *device_nodes(Sends, "/twin", Operation.REPORT, TwinRequests),
    *device_nodes(Receives, "/twin", Operation.SUBSCRIBE, TwinReplies),
)
