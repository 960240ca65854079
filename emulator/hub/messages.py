"""A message, device-to-cloud or cloud-to-device: a body, system and application properties.

Names and limits are those of IoT Hub docs: create and read messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# A property without a value is None: MQTT's bags tell it from an empty one.
Properties = Mapping[str, str | None]


@dataclass(frozen=True)
class Message:
    """One message, as its sender made it.

    Args:
        body: any bytes.
        system: system properties by their AMQP names: `message-id`, `correlation-id`, `user-id`,
            `to`, `content-type`, `content-encoding`, `absolute-expiry-time`, and so on.
        properties: application properties.
    """

    body: bytes
    system: Mapping[str, str] = field(default_factory=dict)
    properties: Properties = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes as the limits count them: body, system values, application names and values."""
        return (
            len(self.body)
            + sum(len(value.encode()) for value in self.system.values())
            + sum(
                len(name.encode()) + len((value or "").encode())
                for name, value in self.properties.items()
            )
        )
