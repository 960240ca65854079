"""Messages of AMQP as messages of the hub, whose properties are texts, and the other way round."""

from __future__ import annotations

import binascii
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from emulator.amqp.message import Message as AmqpMessage
from emulator.amqp.message import Value
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Timestamp, UByte, ULong
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.times import iso
from emulator.hub.links.link import Delivery
from emulator.hub.messages.message import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The fields of AMQP's properties, and the names of the hub.
_SYSTEM = {
    "message_id": "message-id",
    "user_id": "user-id",
    "to": "to",
    "correlation_id": "correlation-id",
    "content_type": "content-type",
    "content_encoding": "content-encoding",
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
    fields = message.properties
    system = {
        name: _text(name, value)
        for field, name in _SYSTEM.items()
        if (value := getattr(fields, field)) is not None
    }
    if (expires := fields.absolute_expiry_time) is not None:
        system["absolute-expiry-time"] = _text("absolute-expiry-time", Timestamp(expires))
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
    system = delivery.system
    user_id = system.get("user-id")
    has_expiry = "absolute-expiry-time" in system
    return AmqpMessage(
        delivery.body,
        Properties(
            message_id=system.get("message-id"),
            user_id=None if user_id is None else user_id.encode(),
            to=system.get("to"),
            correlation_id=system.get("correlation-id"),
            content_type=_symbol(system.get("content-type")),
            content_encoding=_symbol(system.get("content-encoding")),
            absolute_expiry_time=timestamp(delivery.expires) if has_expiry else None,
        ),
        dict(delivery.properties),
        {
            "x-opt-sequence-number": ULong(delivery.sequence_number),
            "x-opt-lock-token": delivery.lock_token,
            "iothub-deliverycount": UByte(delivery.delivery_count),
            "iothub-enqueuedtime": timestamp(delivery.enqueued),
        },
    )


def time_of(milliseconds: int) -> datetime:
    """Return the time of a timestamp.

    Raises:
        OverflowError: it is out of range.
    """
    return _EPOCH + timedelta(milliseconds=milliseconds)


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a timestamp."""
    return Timestamp((time - _EPOCH) // timedelta(milliseconds=1))


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


def _symbol(text: str | None) -> str | None:
    """Return a text in ASCII: a symbol has no other characters."""
    return text if text is None or text.isascii() else text.encode("ascii", "replace").decode()


def _text(name: str, value: Any) -> str:
    """Write a value as text; Python's and Node's SDKs send numbers too."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        if isinstance(value, Timestamp):
            return iso(time_of(value))
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
