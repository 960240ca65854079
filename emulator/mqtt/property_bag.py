"""Property bags: a message's properties as the last segment of a topic.

They are `k=v` pairs joined by `&`, percent-encoded UTF-8. To a device, a key without `=` has no
value. System properties have short names such as `$.mid` (IoT Hub docs: MQTT support; EdgeHub:
SystemProperties).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from emulator.hub.messages.message import NO_PROPERTIES, Properties
from emulator.mqtt.frame import ProtocolError

# Short names, with the names of AMQP and of the event log, in the order of a real hub (seen there).
_SYSTEM = {
    "$.mid": "message-id",
    "$.exp": "absolute-expiry-time",
    "$.to": "to",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.on": "iothub-outputname",
    "$.schema": "iothub-message-schema",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
    "$.diagid": "diagnostic-id",
    "$.diagctx": "diagnostic-context",
}
# An edge hub names the sender of a message here. What a device claims is ignored.
_SENDER = ("$.cdid", "$.cmid")

# This short name stands for an application property (a capture of a message: docs#114510).
_CREATION_TIME = {"$.ctime": "iothub-creation-time-utc"}

# The application property that a real hub writes before the others.
_ACK = "iothub-ack"


class Bag(NamedTuple):
    """System properties by their AMQP names, and application properties."""

    system: Mapping[str, str] = NO_PROPERTIES
    properties: Properties = NO_PROPERTIES


def parse(text: str) -> Bag:
    """Parse the bag of a device's message; a raw `/` ends it (azure-iot-sdk-c#1695).

    Of a repeated name the last pair counts, also if letter case differs: a real hub passes one of
    them on (IoT Hub docs: message routing). A name without `=` has an empty value: reports disagree
    whether a real hub stores null.

    Raises:
        ProtocolError: a name is empty, or a pair has a second `=` (azure-iot-sdk-c#1695).
    """
    text = text.partition("/")[0]
    if not text:
        return Bag()
    system: dict[str, str] = {}
    properties: dict[str, str | None] = {}
    names: dict[str, str] = {}
    for pair in text.split("&"):
        encoded, _, encoded_value = pair.partition("=")
        if not encoded or "=" in encoded_value:
            raise ProtocolError(f"Malformed property {pair!r}: it must be name or name=value")
        name, value = unquote(encoded), unquote(encoded_value)
        if name in _SENDER:
            continue
        if name in _SYSTEM:
            system[_SYSTEM[name]] = value
        else:
            name = _CREATION_TIME.get(name, name)
            properties.pop(names.get(name.lower(), ""), None)
            names[name.lower()] = name
            properties[name] = value
    return Bag(system, properties)


def write(system: Mapping[str, str], properties: Mapping[str, str | None]) -> str:
    """Write a bag, in the order of a real hub."""
    pairs = [(short, system[name]) for short, name in _SYSTEM.items() if name in system]
    ordered = sorted(properties.items(), key=lambda item: item[0] != _ACK)
    return "&".join(
        _encode(name) if value is None else f"{_encode(name)}={_encode(value)}"
        for name, value in (*pairs, *ordered)
    )


def _encode(text: str) -> str:
    return quote(text, safe="")
