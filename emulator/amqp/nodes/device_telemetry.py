"""Links by which devices and modules send telemetry."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from emulator.amqp.errors import AmqpError
from emulator.amqp.incoming import IncomingDelivery
from emulator.amqp.message import decode_message, split_messages
from emulator.amqp.nodes.device import MODULE, Device, DeviceHandler, device_nodes, opens
from emulator.amqp.nodes.messages import telemetry
from emulator.amqp.nodes.node import Callers, LinkRequest, Receives, Sends
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import HubError, MessageTooLarge, ServerError
from emulator.hub.core.printable import printable
from emulator.hub.messages.message import Message
from emulator.hub.messages.telemetry import Sender

log = logging.getLogger(__name__)

# With a throttle, so many messages wait for their turn on a link.
_THROTTLED_CREDIT = 10

# How many messages of a batch are taken in one turn: see `Turns`.
_PART = 10

# How many messages, decoded, the event log takes in one turn.
_INGESTED = 100

# A larger message is not decoded: its limit counts bodies and properties.
_MAX_ENCODED_BYTES = limits.D2C_MESSAGE_BYTES + 64 * 1024


class TelemetryLink(DeviceHandler):
    """A link of a device that sends telemetry.

    If the hub limits telemetry, messages wait for their turn, and their outcomes with them. The
    device runs out of credit meanwhile.
    """

    def __init__(self, device: Device, request: LinkRequest[Any]) -> None:
        super().__init__(device, request)
        self._throttles = device.hub.gate.throttles
        self._is_limited = self._throttles.limits(Operation.SEND_EVENT)
        if self._is_limited:
            self.credit = _THROTTLED_CREDIT
        self._last_sender: Sender | None = None
        self._received: list[Message] = []  # they came together, in these deliveries
        self._deliveries: list[IncomingDelivery] = []
        self._waiting: deque[tuple[IncomingDelivery, Iterator[bytes]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Take a message, or a batch of messages, which has the size limit of one message."""
        if len(delivery.data) > _MAX_ENCODED_BYTES:
            raise self.request.error(_too_large(len(delivery.data)))
        rest = split_messages(delivery.data, delivery.message_format)
        encoded = [*islice(rest, _PART + 1)]
        if self._is_limited or self._task is not None or len(encoded) > _PART:
            self._ingest()
            self._waiting.append((delivery, chain(encoded, rest)))
            if self._task is None:
                self._task = asyncio.ensure_future(self._take_waiting())
        else:
            received = self._parse(encoded)
            self._check_size(received)
            self._enter()
            if not self._deliveries:
                self.request.client.put_off.append(self._ingest)
            self._received += received
            self._deliveries.append(delivery)

    def end(self) -> None:
        """See `DeviceHandler.end`; messages that wait for their turn are not taken any more."""
        self._ingest()
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def _ingest(self) -> None:
        """Pass the messages that came together to the hub."""
        if self._deliveries:
            received, self._received = self._received, []
            deliveries, self._deliveries = self._deliveries, []
            self._sender().ingest_soon(received, partial(self._stored, deliveries))

    def _sender(self) -> Sender:
        """Return the sender that the hub knows; a renewed token brings another admission."""
        admission = self.request.device
        if self._last_sender is None or self._last_sender.admission is not admission:
            self._last_sender = self.device.hub.telemetry.sender(admission)
        return self._last_sender

    def _stored(self, deliveries: list[IncomingDelivery], error: HubError | None) -> None:
        for delivery in deliveries:
            if error is None:
                delivery.settle()
            else:
                delivery.reject(self.request.error(error))

    async def _take_waiting(self) -> None:
        while self._waiting:
            delivery, encoded = self._waiting.popleft()
            try:
                await self._take(encoded)
            except AmqpError as error:
                delivery.reject(error)
            except Exception:
                log.exception("Telemetry of %s was not handled", printable(self.device.key))
                delivery.reject(self.request.error(ServerError()))
            else:
                delivery.settle()
        self._task = None

    async def _take(self, encoded: Iterator[bytes]) -> None:
        """Take a delivery in its turn; between the parts of a batch, other work has its turn."""
        received: list[Message] = []
        turns = self.device.hub.turns
        await turns.take()
        while part := self._parse(islice(encoded, _PART)):
            received += part
            await turns.take()
        self._check_size(received)
        await self._throttles.wait(Operation.SEND_EVENT)
        self._enter()
        for start in range(0, len(received), _INGESTED):
            with self.request.amqp_errors():
                self._sender().ingest(received[start : start + _INGESTED])
            await turns.take()

    def _enter(self) -> None:
        with self.request.amqp_errors():
            self.request.enter(Operation.SEND_EVENT)

    def _parse(self, encoded: Iterable[bytes]) -> list[Message]:
        with self.request.amqp_errors():
            return [telemetry(decode_message(each)) for each in encoded]

    def _check_size(self, received: list[Message]) -> None:
        size = sum(message.size for message in received)
        if size > limits.D2C_MESSAGE_BYTES:
            raise self.request.error(_too_large(size))


def _too_large(size: int) -> MessageTooLarge:
    return MessageTooLarge(f"The message is {size} bytes; {limits.D2C_MESSAGE_BYTES} are allowed.")


class InputLink(DeviceHandler):
    """A link by which a module receives the messages of other modules.

    Only the hub of an IoT Edge device sends these, so nothing comes over it.
    """


_PATH = "/messages/events"

NODES = (
    *device_nodes(Sends, _PATH, Operation.SEND_EVENT, TelemetryLink),
    Receives(MODULE + _PATH, Operation.SUBSCRIBE, opens(InputLink), Callers.DEVICES),
)
