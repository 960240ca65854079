"""Devices over AMQP, as their SDKs speak it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from emulator.amqp.message import Message
from emulator.amqp.performatives import ACCEPTED, Properties
from emulator.amqp.types import Symbol
from tests.amqp.lab import AmqpClient, Lab, RemoteLink, device_token

CHANNEL = "com.microsoft:channel-correlation-id"


def connect(lab: Lab, name: str = "d1", **fields: Any) -> AmqpClient:
    """Open a connection, with the token of a device."""
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, name, **fields))
    return client


def path(name: str) -> str:
    """Return how the addresses of a device begin."""
    return f"/devices/{name.replace('/', '/modules/')}"


def telemetry(client: AmqpClient, name: str = "d1", **fields: Any) -> RemoteLink:
    """Attach a link for telemetry."""
    return client.sender(f"{path(name)}/messages/events", **fields)


def commands(
    client: AmqpClient, name: str = "d1", *, credit: int = 10, **fields: Any
) -> RemoteLink:
    """Attach a link for cloud-to-device messages; what waits is sent by the credit."""
    return client.receiver(f"{path(name)}/messages/devicebound", credit=credit, **fields)


class MethodPair:
    """The links of a device for direct methods."""

    def __init__(
        self, client: AmqpClient, name: str = "d1", *, credit: int = 10, pair: str = "methods:1"
    ) -> None:
        properties = {Symbol(CHANNEL): pair}
        address = f"{path(name)}/methods/devicebound"
        self.responses = client.sender(address, properties=properties)
        self.requests = client.receiver(address, credit=credit, properties=properties)

    def take(self) -> tuple[str, bytes, UUID]:
        """Take a request: its name, payload and id."""
        message = self.requests.take()
        assert isinstance(message.body, bytes)
        correlation_id = message.properties.correlation_id
        assert isinstance(correlation_id, UUID)
        return message.application_properties["IoThub-methodname"], message.body, correlation_id

    def respond(self, correlation_id: Any, status: Any, payload: bytes = b"{}") -> Any:
        """Send a response; return its outcome."""
        properties = Properties(correlation_id=correlation_id)
        return self.responses.send(Message(payload, properties, {"IoThub-status": status}))


class TwinPair:
    """The links of a device for its twin; both settled, as the SDK for Node has it."""

    def __init__(
        self, client: AmqpClient, name: str = "d1", *, credit: int = 100, pair: str = "twin:1"
    ) -> None:
        fields: dict[str, Any] = {"properties": {Symbol(CHANNEL): pair}, "snd_settle_mode": 1}
        self.client = client
        self.requests = client.sender(f"{path(name)}/twin", **fields)
        self.replies = client.receiver(f"{path(name)}/twin", credit=credit, **fields)

    def request(
        self, operation: str, resource: str | None = None, body: bytes = b" ", **more: Any
    ) -> Message:
        """Send a request, and take its reply."""
        correlation_id = more.pop("correlation_id", "Request1")
        annotations = {"operation": operation, **more}
        if resource is not None:
            annotations["resource"] = resource
        properties = Properties(correlation_id=correlation_id)
        self.requests.post(Message(body, properties, message_annotations=annotations), settled=True)
        reply = self.replies.take()
        assert reply.properties.correlation_id == correlation_id
        return reply

    def get(self) -> Message:
        """Read the twin."""
        return self.request("GET")

    def report(self, body: bytes, **more: Any) -> Message:
        """Report properties."""
        return self.request("PATCH", "/properties/reported", body, **more)

    def notify(self, operation: str = "PUT") -> Message:
        """Ask for changes of the desired properties, or end that."""
        return self.request(operation, "/notifications/twin/properties/desired")


ACCEPT = ACCEPTED
