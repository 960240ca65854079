"""Pairs of links by which devices and modules receive direct methods, and respond to them."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from emulator.amqp.incoming import IncomingDelivery
from emulator.amqp.message import Message
from emulator.amqp.nodes.device import Device, DeviceHandler, device_nodes
from emulator.amqp.nodes.messages import body_bytes
from emulator.amqp.nodes.node import LinkRequest, Receives, Sends
from emulator.amqp.performatives import Properties
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid

_INT32_MAX = 2**31 - 1


class _MethodLink(DeviceHandler):
    """A link of a pair."""

    def begin(self) -> None:
        """See `DeviceHandler.begin`."""
        self.device.methods.add(self)
        if self.device.accepts_method(""):
            self.device.hub.links.subscribed(self.device)

    def end(self) -> None:
        """See `DeviceHandler.end`."""
        self.device.methods.remove(self)


class MethodRequests(_MethodLink):
    """A link of a device that receives direct methods."""

    def __init__(self, device: Device, request: LinkRequest[Any]) -> None:
        super().__init__(device, request)
        self._ids = uuid4().bytes[:9]

    def invoke(self, request_id: str, name: str, payload: bytes) -> None:
        """Send a request; without credit, it waits for it.

        The correlation id is a UUID, which ends with the hub's own id of the request.
        """
        end = request_id.encode().rjust(16 - len(self._ids), b"\0")
        properties = Properties(correlation_id=UUID(bytes=self._ids + end))
        message = Message(payload, properties, {"IoThub-methodname": name})
        self.link.send(message.to_bytes())


class MethodResponses(_MethodLink):
    """A link of a device that sends the responses of direct methods."""

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Take a response; one that is late, or to an unknown request, is ignored."""
        hub = self.device.hub
        for message in delivery.messages():
            with self.request.amqp_errors():
                self.request.enter(Operation.RESPOND_TO_METHOD)
                status, payload = _status(message), body_bytes(message)
            hub.links.note_activity(self.device.key)
            request_id = _request_id(message.properties.correlation_id)
            hub.methods.respond(self.device, request_id, status, payload)
        delivery.settle()


def _status(message: Message) -> int:
    """Return the status of a response; Node sends an int or a uint."""
    status: Any = message.application_properties.get("IoThub-status")
    is_int = isinstance(status, int) and not isinstance(status, bool)
    if not is_int or not -_INT32_MAX - 1 <= status <= _INT32_MAX:
        raise ArgumentInvalid(f"The property IoThub-status ({status}) is not a 32-bit integer.")
    return int(status)


def _request_id(correlation_id: object) -> str:
    """Return the hub's own id of a request; "" if the correlation id is not one of the hub's.

    Node sends the UUID back as text, or as a UUID.
    """
    try:
        found = correlation_id if isinstance(correlation_id, UUID) else UUID(str(correlation_id))
        return found.bytes[9:].lstrip(b"\0").decode("ascii")
    except ValueError:
        return ""


_PATH = "/methods/devicebound"

NODES = (
    *device_nodes(Sends, _PATH, Operation.RESPOND_TO_METHOD, MethodResponses),
    *device_nodes(Receives, _PATH, Operation.SUBSCRIBE, MethodRequests),
)
