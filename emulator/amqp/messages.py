"""The hub's messages as messages of AMQP, and the other way round.

Where a property stands in AMQP: IoT Hub docs: create and read messages; SDKs for C# and Node.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.message import Message as AmqpMessage
from emulator.amqp.message import Value
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Timestamp, UByte, ULong
from emulator.hub.core.times import iso
from emulator.hub.links.link import Delivery
from emulator.hub.messages.message import Message

# The fields of AMQP's properties, with the hub's names.
_FIELDS = (
    ("message_id", "message-id"),
    ("user_id", "user-id"),
    ("to", "to"),
    ("subject", "subject"),
    ("reply_to", "reply-to"),
    ("correlation_id", "correlation-id"),
    ("content_type", "content-type"),
    ("content_encoding", "content-encoding"),
    ("absolute_expiry_time", "absolute-expiry-time"),
    ("creation_time", "creation-time"),
    ("group_id", "group-id"),
    ("reply_to_group_id", "reply-to-group-id"),
)

# The message annotations that are system properties. Node writes x-opt-output-name, C# the names of
# the tracing headers.
_ANNOTATIONS = {
    "iothub-outputname": "iothub-outputname",
    "x-opt-output-name": "iothub-outputname",
    "iothub-message-schema": "iothub-message-schema",
    "iothub-interface-id": "iothub-interface-id",
    "dt-subject": "dt-subject",
    "Diagnostic-Id": "diagnostic-id",
    "Correlation-Context": "diagnostic-context",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def from_amqp(message: AmqpMessage) -> Message:
    """Return a message that a client has sent as the hub has it: all properties are text.

    Of names that differ in letter case alone the last one counts, as over MQTT.

    Raises:
        AmqpError: the body or a property has a type that the hub does not take.
    """
    sent, system = message.properties, {}
    for field, name in _FIELDS:
        if (value := getattr(sent, field)) is not None:
            system[name] = _text(value)
    for key, value in message.message_annotations.items():
        if (known := _ANNOTATIONS.get(key)) is not None and value is not None:
            system[known] = _text(value)
    properties: dict[str, str | None] = {}
    names: dict[str, str] = {}
    for key, value in message.application_properties.items():
        name = str(key)
        properties.pop(names.get(name.lower(), ""), None)
        names[name.lower()] = name
        properties[name] = None if value is None else _text(value)
    return Message(body_bytes(message), system, properties)


def body_bytes(message: AmqpMessage) -> bytes:
    """Return the body of a message that a client has sent.

    Raises:
        AmqpError: the body is neither data nor text.
    """
    body: Any = message.body
    if isinstance(body, Value):
        body = body.value
    if isinstance(body, str):
        return body.encode()
    if body is None or isinstance(body, bytes):
        return bytes(body or b"")
    raise AmqpError(
        Condition.NOT_IMPLEMENTED, "The body of the message is not binary. Send a data section."
    )


def to_device(delivery: Delivery) -> bytes:
    """Write a cloud-to-device message; the annotations are those that the SDK for C# reads."""
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
    ).to_bytes()


def timestamp(time: datetime) -> Timestamp:
    """Return a time as AMQP has it."""
    return Timestamp((time - _EPOCH) // _MILLISECOND)


def _symbol(text: str | None) -> str | None:
    """Return a text in ASCII: a symbol has no other characters."""
    return text if text is None or text.isascii() else text.encode("ascii", "replace").decode()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Timestamp):
        try:
            return iso(_EPOCH + value * _MILLISECOND)
        except OverflowError:
            raise AmqpError(Condition.INVALID_FIELD, f"{value} ms is not a time") from None
    if isinstance(value, str | int | float | UUID):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    raise AmqpError(
        Condition.INVALID_FIELD, f"A property has the type {type(value).__name__}. Send text."
    )
