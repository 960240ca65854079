"""Services send cloud-to-device messages to `/messages/devicebound`."""

from __future__ import annotations

from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingDelivery, IncomingLink
from emulator.amqp.nodes.messages import hub_message
from emulator.amqp.nodes.node import LinkRequest, Sends
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, DeviceNotFound, HubError
from emulator.hub.core.printable import printable
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.addresses import device_ids

_CREDIT = 50

# A larger message ends the link. One that is only too large for a device is refused by itself.
_MAX_MESSAGE_BYTES = limits.D2C_MESSAGE_BYTES


class _Commands:
    """A link by which a service sends messages to devices."""

    def __init__(self, request: LinkRequest[IncomingLink]) -> None:
        self._request = request

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Queue a message; it is stored before it is accepted, and not stored if it is refused."""
        with self._request.amqp_errors():
            try:
                self._queue(delivery)
            except HubError as error:
                # azure-iot-hub shows its caller no reason: "C2D message send failure".
                self._request.hub.refusals.info(
                    "Refused a cloud-to-device message: %s", printable(error), error=error
                )
                raise
        delivery.settle()

    def _queue(self, delivery: IncomingDelivery) -> None:
        request = self._request
        messages = delivery.messages()
        if len(messages) != 1:
            raise ArgumentInvalid("A batch of cloud-to-device messages: send them one by one.")
        message = hub_message(messages[0])
        device_id = _device_id(request.hub, message.system.get("to", ""))
        request.enter(size=message.size)
        request.hub.cloud_to_device.send(device_id, message)

    def on_detached(self, error: AmqpError | None) -> None:
        """See `Handler.on_detached`; nothing is kept."""


def _device_id(hub: IotHub, to: str) -> str:
    """Return the device that an address names: of the ids that it can mean, one that exists."""
    ids = device_ids(to)
    for device_id in ids:
        if hub.identities.has(IdentityKey(device_id)):
            return device_id
    raise DeviceNotFound(ids[-1])


NODES = (
    Sends(
        "/messages/devicebound",
        Operation.SEND_COMMAND,
        lambda request: request.link.accept(
            _Commands(request), credit=_CREDIT, max_message_size=_MAX_MESSAGE_BYTES
        ),
    ),
)
