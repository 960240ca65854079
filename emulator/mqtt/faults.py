"""What a device publishes while a fault is on: the hub gets it one by one, and PUBACKs can wait."""

from __future__ import annotations

from collections.abc import Callable

from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import HubError, ThrottlingException
from emulator.hub.faults.requests import is_request
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission
from emulator.hub.messages.message import Message
from emulator.hub.messages.telemetry import Sender
from emulator.mqtt.frame import Publish


class FaultyPublish:
    """A PUBLISH of a device: telemetry, or a request that was carried out.

    Args:
        hub: the hub.
        sender: the device.
        operation: what the packet is for.
        packet: the packet.
    """

    def __init__(
        self, hub: IotHub, sender: Admission, operation: Operation, packet: Publish
    ) -> None:
        self._hub = hub
        self._sender = sender
        self._operation = operation
        self._packet = packet

    def take(
        self,
        sender: Sender,
        message: Message | None,
        acknowledge: Callable[[int], None],
        end: Callable[[], None],
    ) -> None:
        """Pass telemetry to the hub, and acknowledge the packet: at once, later or never.

        A fault request is never acknowledged (SDK for C#: its end-to-end tests).

        Args:
            sender: takes the telemetry.
            message: the telemetry; None for a request.
            acknowledge: sends a PUBACK.
            end: ends the connection, if the hub can't store the telemetry.

        Raises:
            HubError: a fault refuses the telemetry.
        """
        hub = self._hub
        if message is None:
            self._acknowledge(acknowledge)
            return
        delay = 0.0
        try:
            hub.gate.enter(self._sender, self._operation)
        except ThrottlingException as error:
            delay = error.delay  # MQTT can't refuse telemetry (IoT Hub docs: throttling)
        asks = hub.faults.takes_requests and is_request(message.properties)

        def done(error: HubError | None) -> None:
            if error is not None:
                end()
            elif not asks:
                self._acknowledge(acknowledge, delay)

        sender.ingest_soon([message], done)

    def _acknowledge(self, acknowledge: Callable[[int], None], delay: float = 0) -> None:
        faults, key = self._hub.faults, self._sender.key
        if not self._packet.qos or faults.match("drop-puback", key, self._operation):
            return
        if fault := faults.match("delay-puback", key, self._operation):
            delay = max(delay, fault.delay)
        if delay:
            self._hub.clock.call_later(delay, acknowledge, self._packet.packet_id)
        else:
            acknowledge(self._packet.packet_id)
