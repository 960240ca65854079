"""Messages of AMQP as bytes: their sections (section 3.2 of AMQP 1.0), and batches of messages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from msgspec import Struct

from emulator.amqp.decoder import decode
from emulator.amqp.encoder import encode, encode_annotations, encode_binary
from emulator.amqp.errors import AmqpError, Condition, DecodeError
from emulator.amqp.performatives import Header, Properties

# The message formats: of the standard, and of a batch, where each data section is a message (the
# SDKs of Azure; the C SDK sends all its telemetry so).
STANDARD_FORMAT = 0
BATCH_FORMAT = 0x80013700

# The codes of the sections, in the order that they have in a message.
_HEADER, _DELIVERY_ANNOTATIONS, _MESSAGE_ANNOTATIONS, _PROPERTIES = 0x70, 0x71, 0x72, 0x73
_APPLICATION_PROPERTIES, _DATA, _SEQUENCE, _VALUE, _FOOTER = 0x74, 0x75, 0x76, 0x77, 0x78

_CODES = {
    "amqp:header:list": _HEADER,
    "amqp:delivery-annotations:map": _DELIVERY_ANNOTATIONS,
    "amqp:message-annotations:map": _MESSAGE_ANNOTATIONS,
    "amqp:properties:list": _PROPERTIES,
    "amqp:application-properties:map": _APPLICATION_PROPERTIES,
    "amqp:data:binary": _DATA,
    "amqp:amqp-sequence:list": _SEQUENCE,
    "amqp:amqp-value:*": _VALUE,
    "amqp:footer:map": _FOOTER,
}
_CODES_AND_NAMES: dict[Any, int] = {**_CODES, **{code: code for code in _CODES.values()}}


class Value(Struct, frozen=True):
    """A body that is one value of AMQP (section 3.2.8), or the list of a sequence (3.2.7)."""

    value: Any


_NO_PROPERTIES = Properties()


class Message(Struct, frozen=True):
    """A message; the keys of its annotations are symbols.

    Header, delivery annotations and footer are not kept: no node needs them.

    Args:
        body: bytes, joined if they arrived in several sections; or a value of AMQP.
    """

    body: bytes | Value = b""
    properties: Properties = _NO_PROPERTIES
    application_properties: dict[str, Any] = {}
    message_annotations: dict[Any, Any] = {}

    def to_bytes(self) -> bytes:
        """Encode the message.

        Raises:
            TypeError, ValueError: a value has no encoding.
        """
        parts: list[bytes] = []
        if self.message_annotations:
            parts += (b"\x00\x53\x72", encode_annotations(self.message_annotations))
        if self.properties is not _NO_PROPERTIES:
            parts.append(self.properties.to_bytes())
        if self.application_properties:
            parts += (b"\x00\x53\x74", encode(self.application_properties))
        if isinstance(self.body, bytes):
            parts += (b"\x00\x53\x75", encode_binary(self.body))
        else:
            parts += (b"\x00\x53\x77", encode(self.body.value))
        return b"".join(parts)


def decode_messages(data: bytes, message_format: int = STANDARD_FORMAT) -> list[Message]:
    """Decode the message of a delivery, or the messages of a batch.

    Raises:
        AmqpError: the format is unknown, or the bytes are not such a message.
    """
    return [decode_message(each) for each in split_messages(data, message_format)]


def split_messages(data: bytes, message_format: int = STANDARD_FORMAT) -> Iterator[bytes]:
    """Yield the message of a delivery, or the messages of a batch, each still encoded.

    Raises:
        AmqpError: the format is unknown, or a batch is malformed.
    """
    if message_format == BATCH_FORMAT:
        yield from _batch(data)
    elif message_format:
        raise AmqpError(Condition.NOT_IMPLEMENTED, f"Unknown message format {message_format:#x}")
    else:
        yield data


def _batch(data: bytes) -> Iterator[bytes]:
    for code, value in _sections(data):
        if code == _DATA:
            yield value
        elif code in (_SEQUENCE, _VALUE):
            raise DecodeError("A batch has a body that is not data")


def decode_message(data: bytes) -> Message:
    """Decode a message.

    Raises:
        DecodeError: the bytes are not a message.
    """
    found: dict[int, Any] = {}
    more: list[Any] = []  # the sections of the body behind the first
    for code, value in _sections(data):
        if code not in found:
            found[code] = value
        elif code in (_DATA, _SEQUENCE):
            more.append(value)
        else:
            raise DecodeError("A message has a section twice")
    bodies = [code for code in (_DATA, _SEQUENCE, _VALUE) if code in found]
    if len(bodies) > 1:
        raise DecodeError("A message has bodies of several types")
    body: bytes | Value
    if _VALUE in found:
        body = Value(found[_VALUE])
    elif _SEQUENCE in found:
        body = Value([*chain(found[_SEQUENCE], *more)])
    else:
        body = b"".join((found.get(_DATA, b""), *more))
    if _HEADER in found:
        Header.from_fields(found[_HEADER])  # a malformed one is refused
    properties = found.get(_PROPERTIES)
    application_properties = found.get(_APPLICATION_PROPERTIES) or {}
    if not all(isinstance(key, str) for key in application_properties):
        raise DecodeError("The name of an application property is not a string")
    return Message(
        body,
        _NO_PROPERTIES if properties is None else Properties.from_fields(properties),
        application_properties,
        found.get(_MESSAGE_ANNOTATIONS) or {},
    )


_TYPES: dict[int, type] = {
    **dict.fromkeys((_HEADER, _PROPERTIES, _SEQUENCE), list),
    **dict.fromkeys((_DELIVERY_ANNOTATIONS, _MESSAGE_ANNOTATIONS, _FOOTER), dict),
    _APPLICATION_PROPERTIES: dict,
    _DATA: bytes,
}


def _sections(data: bytes) -> Iterator[tuple[int, Any]]:
    """Decode each section, as its code and its value, and check that they are in order."""
    position, end, last = 0, len(data), 0
    while position < end:
        if data[position]:
            raise DecodeError("A message has bytes outside of a section")
        descriptor, position = decode(data, position + 1, end)
        known = isinstance(descriptor, int | str)
        code = _CODES_AND_NAMES.get(descriptor, 0) if known else 0
        if code < last or not code:
            raise DecodeError("A message has an unknown section, or one at a wrong place")
        last = code
        value, position = decode(data, position, end)
        if code != _VALUE and type(value) is not _TYPES[code]:
            raise DecodeError(f"Section {code:#x} of a message has a value of another type")
        yield code, value
