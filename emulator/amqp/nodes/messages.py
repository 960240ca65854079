"""Messages of AMQP as messages of the hub, whose properties are texts, and the other way round."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from emulator.amqp.message import Message as AmqpMessage
from emulator.amqp.message import Value
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Timestamp, UByte, ULong
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.times import from_milliseconds, iso, milliseconds
from emulator.hub.links.link import Delivery
from emulator.hub.messages.message import Message

# The system properties that stand in AMQP's properties, and their fields there (IoT Hub docs:
# message format).
PROPERTIES = {
    "message-id": "message_id",
    "user-id": "user_id",
    "to": "to",
    "correlation-id": "correlation_id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "absolute-expiry-time": "absolute_expiry_time",
}

# The message annotations that are system properties, with the names of the hub. Node's SDK writes
# x-opt-output-name; C#'s SDK writes the names of the tracing headers.
_ANNOTATIONS = {
    "iothub-outputname": "iothub-outputname",
    "x-opt-output-name": "iothub-outputname",
    "iothub-message-schema": "iothub-message-schema",
    "iothub-interface-id": "iothub-interface-id",
    "dt-subject": "dt-subject",
    "Diagnostic-Id": "diagnostic-id",
    "Correlation-Context": "diagnostic-context",
}


def hub_message(message: AmqpMessage) -> Message:
    """Return a message of the hub.

    Raises:
        ArgumentInvalid: a value or the body can't be a text or bytes.
    """
    system = {
        name: _text(name, value)
        for name, field in PROPERTIES.items()
        if (value := getattr(message.properties, field)) is not None
    }
    properties = {
        name: None if value is None else _text(name, value)
        for name, value in message.application_properties.items()
    }
    return Message(body_bytes(message), system, properties)


def telemetry(message: AmqpMessage) -> Message:
    """Return a message of a device.

    Of names that differ in letter case alone the last one counts, as over MQTT.

    Raises:
        ArgumentInvalid: see `hub_message`.
    """
    found = hub_message(message)
    system = {
        known: _text(name, value)
        for name, value in message.message_annotations.items()
        if (known := _ANNOTATIONS.get(name)) is not None and value is not None
    }
    if system:
        found = replace(found, system={**found.system, **system})
    last = {name.lower(): name for name in found.properties}
    if len(last) < len(found.properties):
        kept = {name: found.properties[name] for name in last.values()}
        found = replace(found, properties=kept)
    return found


def to_device(delivery: Delivery) -> AmqpMessage:
    """Return a cloud-to-device message, with the annotations that the SDK for C# reads."""
    return AmqpMessage(
        delivery.body,
        amqp_properties(delivery.system),
        dict(delivery.properties),
        {
            "x-opt-sequence-number": ULong(delivery.sequence_number),
            "x-opt-lock-token": delivery.lock_token,
            "iothub-deliverycount": UByte(delivery.delivery_count),
            "iothub-enqueuedtime": timestamp(delivery.enqueued),
        },
    )


def amqp_properties(system: Mapping[str, str]) -> Properties:
    """Return the properties of AMQP; a text that is not a time has no place there."""
    fields = {
        field: _property(name, system[name]) for name, field in PROPERTIES.items() if name in system
    }
    return Properties(**fields)


def _property(name: str, text: str) -> Any:
    if name == "user-id":
        return text.encode()
    if name == "absolute-expiry-time":
        return _time(text)
    # The content is described by symbols.
    return in_ascii(text) if name.startswith("content-") else text


def _time(text: str) -> Timestamp | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return timestamp(time if time.tzinfo else time.replace(tzinfo=UTC))


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a timestamp."""
    return Timestamp(milliseconds(time))


def in_ascii(text: str) -> str:
    """Return a text with `?` in place of other characters: a symbol has no others."""
    return text.encode("ascii", "replace").decode()


def body_bytes(message: AmqpMessage) -> bytes:
    """Return the bytes of a body; rhea sends a text as a value.

    Raises:
        ArgumentInvalid: it is another value.
    """
    body: Any = message.body
    if isinstance(body, Value):
        body = "" if body.value is None else body.value
        body = body.encode("utf-8", "replace") if isinstance(body, str) else body
    if not isinstance(body, bytes):
        raise ArgumentInvalid("The body of the message is not binary data.")
    return body


def _text(name: str, value: Any) -> str:
    """Write a value as text; Python's and Node's SDKs send numbers too."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        if isinstance(value, Timestamp):
            return iso(from_milliseconds(value))
        if isinstance(value, int | float | UUID):
            return str(value)
        if isinstance(value, bytes):
            return value.decode()
    except OverflowError:
        raise ArgumentInvalid(f"The time {name} is out of range.") from None
    except UnicodeDecodeError:
        # The form of a binary value is ours.
        return binascii.b2a_base64(value, newline=False).decode()
    raise ArgumentInvalid(f"The value of {name} is not a text, a number or a time.")
