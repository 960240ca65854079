"""A message, device-to-cloud or cloud-to-device: a body, system and application properties.

Names and limits are those of IoT Hub docs: create and read messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

# A property without a value is None: MQTT's bags tell it from an empty one.
Properties = Mapping[str, str | None]


# A message, and what the event log or a queue adds to it: measured.
OBJECTS_BYTES = 650
# Two strings in a dict, without their characters; and the bytes of a character that is not ASCII.
_PAIR_BYTES, _WIDE = 220, 4

NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
"""What a message without properties has: a store does not write it."""


class Message(Struct, frozen=True, gc=False, omit_defaults=True):
    """One message, as its sender made it.

    Args:
        body: any bytes.
        system: system properties by their AMQP names: `message-id`, `correlation-id`, `user-id`,
            `to`, `content-type`, `content-encoding`, `absolute-expiry-time`, and so on.
        properties: application properties.
    """

    body: bytes
    system: Mapping[str, str] = NO_PROPERTIES
    properties: Properties = NO_PROPERTIES

    @property
    def memory(self) -> int:
        """Bytes of memory: in a message of many short properties, far more than its size."""
        total = OBJECTS_BYTES + len(self.body)
        if not (self.system or self.properties):
            return total
        for texts in (self.system, self.properties):
            if texts:
                total += _PAIR_BYTES * len(texts)
                for name, text in texts.items():
                    total += len(name) if name.isascii() else _WIDE * len(name)
                    if text:
                        total += len(text) if text.isascii() else _WIDE * len(text)
        return total

    @property
    def size(self) -> int:
        """Bytes as the limits count them: body, system values, application names and values."""
        size = len(self.body)
        for value in self.system.values():
            size += len(value.encode())
        for name, text in self.properties.items():
            size += len(name.encode()) + len((text or "").encode())
        return size
