"""Links by which devices and modules send telemetry."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from emulator.amqp.incoming import IncomingDelivery
from emulator.amqp.nodes.device import Device, DeviceHandler, opens
from emulator.amqp.nodes.messages import telemetry
from emulator.amqp.nodes.node import Callers, LinkRequest, Receives, Sends
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import MessageTooLarge
from emulator.hub.messages.message import Message

# How many messages can be on their way. With a throttle, so many wait for their turn on a link.
_CREDIT = 100
_THROTTLED_CREDIT = 10


class TelemetryLink(DeviceHandler):
    """A link of a device that sends telemetry.

    If the hub limits telemetry, messages wait for their turn, and their outcomes with them. The
    device runs out of credit meanwhile.
    """

    def __init__(self, device: Device, request: LinkRequest[Any]) -> None:
        super().__init__(device, request)
        self._throttles = device.hub.gate.throttles
        self._is_limited = self._throttles.limits(Operation.SEND_EVENT)
        self._waiting: deque[tuple[IncomingDelivery, list[Message]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def accept(self) -> None:
        """See `DeviceHandler.accept`."""
        credit = _THROTTLED_CREDIT if self._is_limited else _CREDIT
        self.link.accept(self, credit=credit, max_message_size=limits.AMQP_MESSAGE_BYTES)

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Take a message, or a batch of messages, which has the size limit of one message."""
        with self.request.amqp_errors():
            received = [telemetry(message) for message in delivery.messages()]
            size = sum(message.size for message in received)
            if size > limits.D2C_MESSAGE_BYTES:
                text = f"The message is {size} bytes; {limits.D2C_MESSAGE_BYTES} are allowed."
                raise MessageTooLarge(text)
        if not self._is_limited:
            self._take(delivery, received)
            return
        self._waiting.append((delivery, received))
        if self._task is None:
            self._task = asyncio.ensure_future(self._take_waiting())

    def end(self) -> None:
        """See `DeviceHandler.end`; messages without an outcome are not taken any more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _take_waiting(self) -> None:
        while self._waiting:
            await self._throttles.wait(Operation.SEND_EVENT)
            if self._waiting:
                self._take(*self._waiting.popleft())
        self._task = None

    def _take(self, delivery: IncomingDelivery, received: list[Message]) -> None:
        with self.request.amqp_errors():
            self.request.enter(Operation.SEND_EVENT)
        self.device.hub.telemetry.ingest(self.request.device, received)
        delivery.settle()


class InputLink(DeviceHandler):
    """A link by which a module receives the messages of other modules.

    Only the hub of an IoT Edge device sends these, so nothing comes over it.
    """

    def accept(self) -> None:
        """See `DeviceHandler.accept`."""
        self.link.accept(self)

    def on_credit(self) -> None:
        """See `Sender.on_credit`."""


_DEVICE = "/devices/{device_id}"
_MODULE = "/devices/{device_id}/modules/{module_id}"

NODES = (
    *(
        Sends(
            f"{path}/messages/events", Operation.SEND_EVENT, opens(TelemetryLink), Callers.DEVICES
        )
        for path in (_DEVICE, _MODULE)
    ),
    Receives(f"{_MODULE}/messages/events", Operation.SUBSCRIBE, opens(InputLink), Callers.DEVICES),
)
