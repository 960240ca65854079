"""A message of AMQP as a message of the hub, whose properties are texts."""

from __future__ import annotations

import binascii
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from emulator.amqp.message import Message as AmqpMessage
from emulator.amqp.message import Value
from emulator.amqp.types import Timestamp
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.times import iso
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
    return Message(_body(message.body), system, properties)


def time_of(milliseconds: int) -> datetime:
    """Return the time of a timestamp.

    Raises:
        OverflowError: it is out of range.
    """
    return _EPOCH + timedelta(milliseconds=milliseconds)


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a timestamp."""
    return Timestamp((time - _EPOCH) // timedelta(milliseconds=1))


def _body(body: Any) -> bytes:
    """Return the bytes of a body; rhea sends a text as a value."""
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
