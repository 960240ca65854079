"""Property bags: a message's properties as the last segment of a topic.

They are `k=v` pairs joined by `&`, percent-encoded UTF-8; a key without `=` has no value. System
properties have short names such as `$.mid` (IoT Hub docs: MQTT support; EdgeHub: SystemProperties).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

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
    "$.ctime": "iothub-creation-time-utc",
    "$.schema": "iothub-message-schema",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
    "$.diagid": "diagnostic-id",
    "$.diagctx": "diagnostic-context",
}
# An edge hub names the sender of a message here. What a device claims is ignored.
_SENDER = ("$.cdid", "$.cmid")

# The application property that a real hub writes before the others.
_ACK = "iothub-ack"


class Bag(NamedTuple):
    """System properties by their AMQP names, and application properties."""

    system: dict[str, str]
    properties: dict[str, str | None]


def parse(text: str) -> Bag:
    """Parse a bag; of a repeated key, the last value counts."""
    bag = Bag({}, {})
    for pair in filter(None, text.split("&")):
        encoded, equals, value = pair.partition("=")
        name = unquote(encoded)
        if name in _SENDER:
            continue
        if name in _SYSTEM:
            bag.system[_SYSTEM[name]] = unquote(value)
        else:
            bag.properties[name] = unquote(value) if equals else None
    return bag


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
