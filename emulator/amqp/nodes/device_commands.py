"""Links by which devices receive cloud-to-device messages, and settle them.

A message's delivery tag is its lock token, as the 16 bytes of .NET's Guid (C# SDK).
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from emulator.amqp.nodes.device import Device, DeviceHandler, device_nodes
from emulator.amqp.nodes.messages import to_device
from emulator.amqp.nodes.node import LinkRequest, Receives
from emulator.amqp.nodes.pairs import replace
from emulator.amqp.performatives import SETTLED, Accepted, Outcome, Rejected
from emulator.hub.access.operations import Operation
from emulator.hub.links.link import Delivery


class CommandLink(DeviceHandler):
    """A link of a device that receives cloud-to-device messages.

    No message is sent to a module: only the hub of an IoT Edge device does that.
    """

    def __init__(self, device: Device, request: LinkRequest[Any]) -> None:
        super().__init__(device, request)
        self.unsettled: set[str] = set()
        """The lock tokens of the messages that the device has not settled."""
        self._commands = device.hub.cloud_to_device
        self._device_id = device.key.device_id

    @property
    def has_credit(self) -> bool:
        """Whether a message can be sent now."""
        return bool(self.link.credit)

    def begin(self) -> None:
        """See `DeviceHandler.begin`; the link takes the place of an older one of its device."""
        old, self.device.commands = self.device.commands, self
        replace(old)
        self.device.hub.links.subscribed(self.device)

    def end(self) -> None:
        """See `DeviceHandler.end`; what the device has not settled returns to its queue."""
        if self.device.commands is self:
            self.device.commands = None
        tokens, self.unsettled = self.unsettled, set()
        self._commands.release(self._device_id, tokens)

    def on_credit(self) -> None:
        """See `Sender.on_credit`."""
        self._commands.push(self.device)

    def deliver(self, delivery: Delivery) -> None:
        """Send a message; one that the device wants settled is accepted as soon as it is sent."""
        token = delivery.lock_token
        payload, tag = to_device(delivery).to_bytes(), UUID(token).bytes_le
        if self.link.attach.snd_settle_mode == SETTLED:
            self.link.send(payload, tag)
            self._commands.complete(self._device_id, token)
        else:
            self.unsettled.add(token)
            self.link.send(payload, tag, on_settled=partial(self._settle, token))

    def _settle(self, token: str, outcome: Outcome | None) -> None:
        """Complete, reject or abandon a message: accepted, rejected, or any other outcome.

        Raises:
            AmqpError: the lock lapsed, or the message is gone. A device in the mode *second* gets
                this error as the outcome.
        """
        self.unsettled.discard(token)
        if isinstance(outcome, Accepted):
            settle = self._commands.complete
        elif isinstance(outcome, Rejected):
            settle = self._commands.reject
        else:
            settle = self._commands.abandon
        with self.request.amqp_errors():
            self.request.enter(Operation.SETTLE_COMMAND)
            settle(self._device_id, token)


NODES = device_nodes(Receives, "/messages/devicebound", Operation.SUBSCRIBE, CommandLink)
