"""Cloud-to-device messages on their way to one device: their packets, and which are in flight."""

from __future__ import annotations

from collections.abc import Collection

from emulator.hub.links.link import Delivery
from emulator.mqtt import property_bag, topics
from emulator.mqtt.frame import TEXT_BYTES, ProtocolError, publish


class Deliveries:
    """The messages of one connection."""

    def __init__(self) -> None:
        self.qos: int | None = None
        """The quality of service that was granted for them; None without a subscription."""
        self._tokens: dict[int, str] = {}  # lock tokens, by packet identifier
        self._packet_id = 0

    @property
    def in_flight(self) -> Collection[str]:
        """The lock tokens of the messages that the device has not acknowledged."""
        return self._tokens.values()

    def write(self, device_id: str, delivery: Delivery) -> bytes:
        """Write a message as a PUBLISH; with QoS 1 it is in flight from now on.

        Raises:
            ProtocolError: its properties do not fit in a topic.
        """
        bag = property_bag.write(delivery.system, delivery.properties)
        topic = topics.cloud_to_device(device_id, bag)
        if len(topic) > TEXT_BYTES:
            raise ProtocolError(
                f"its properties take {len(topic)} bytes in a topic (limit {TEXT_BYTES})"
            )
        if not self.qos:
            return publish(topic, delivery.body)
        packet_id = self._next_packet_id()
        self._tokens[packet_id] = delivery.lock_token
        again = delivery.redelivered
        return publish(topic, delivery.body, packet_id=packet_id, duplicate=again)

    def end(self, packet_id: int) -> str | None:
        """Take a message out of flight, and return its lock token; None if none has this id."""
        return self._tokens.pop(packet_id, None)

    def _next_packet_id(self) -> int:
        """Choose an identifier that is not in flight: of 65,535, 50 are in use at most."""
        while True:
            self._packet_id = self._packet_id % 0xFFFF + 1
            if self._packet_id not in self._tokens:
                return self._packet_id
