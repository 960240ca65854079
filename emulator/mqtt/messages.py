"""Device-to-cloud messages, made of PUBLISH packets and of wills."""

from __future__ import annotations

from msgspec.structs import replace

from emulator.hub.core import limits
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.message import Message
from emulator.mqtt import property_bag, topics
from emulator.mqtt.frame import TEXT_BYTES, ProtocolError, Publish
from emulator.mqtt.property_bag import Bag


def telemetry(packet: Publish, bag: Bag) -> Message:
    """Make a message of a PUBLISH; its flags become properties (IoT Hub docs: MQTT; EdgeHub).

    Args:
        packet: the PUBLISH.
        bag: the properties in its topic.

    Raises:
        ProtocolError: the message is over the limit.
    """
    message = Message(packet.payload, bag.system, bag.properties)
    # Few messages are near the limit: properties take more bytes in the topic than are counted.
    if (
        len(packet.payload) + TEXT_BYTES > limits.D2C_MESSAGE_BYTES
        and message.size > limits.D2C_MESSAGE_BYTES
    ):
        raise ProtocolError(
            f"Message of {message.size} bytes: {limits.D2C_MESSAGE_BYTES} are allowed"
        )
    if packet.retain or packet.duplicate:
        flags = (("mqtt-retain", packet.retain), ("mqtt-dup", packet.duplicate))
        set_flags = {name: "true" for name, is_set in flags if is_set}
        return replace(message, properties={**message.properties, **set_flags})
    return message


def will(packet: Publish, key: IdentityKey) -> Message:
    """Make the message that a device leaves if its connection breaks (IoT Hub docs: MQTT support).

    Args:
        packet: the will of its CONNECT.
        key: the identity of the device.

    Raises:
        ProtocolError: its topic is not the device's own telemetry topic, or has a raw `+` or `#`;
            or it is over the limit.
    """
    if "+" in packet.topic or "#" in packet.topic:  # as in a PUBLISH
        raise ProtocolError(f"Will for an invalid topic: {packet.topic!r}")
    request = topics.parse_topic(packet.topic, key)
    if not isinstance(request, topics.Telemetry):
        raise ProtocolError(f"Will for the topic {packet.topic!r}")
    message = telemetry(packet, property_bag.parse(request.properties))
    return replace(message, properties={**message.properties, "iothub-MessageType": "Will"})
