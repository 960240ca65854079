"""The request of a direct method, and its result.

The rules are those of IoT Hub docs: direct methods, and of what was seen on a real hub.
"""

from __future__ import annotations

import codecs
import re

from msgspec import Struct

from emulator.hub.core import lenient_json, limits, members
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    InvalidResponseWhileProxying,
    MessageTooLarge,
)
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.times import span

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
METHOD = members.Form(
    *("methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds")
)


class MethodRequest(Struct, frozen=True):
    """A direct method to invoke.

    Args:
        payload: JSON text; empty without a payload.
        response_timeout: in seconds, as `connect_timeout`.
    """

    name: str
    payload: bytes
    response_timeout: int
    connect_timeout: int

    @classmethod
    def parse(cls, body: object) -> MethodRequest:
        """Read `{"methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds"}`.

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, MessageTooLarge
        """
        body = members.document(body, METHOD)
        name = members.text(body, "methodName")
        if not name:
            raise ArgumentNull("methodName is missing")
        if len(name) > limits.METHOD_NAME_LENGTH:
            raise ArgumentInvalid(
                f"methodName has more than {limits.METHOD_NAME_LENGTH} characters"
            )
        allowed, usual = limits.METHOD_RESPONSE_TIMEOUT, limits.METHOD_RESPONSE_TIMEOUT_DEFAULT
        response = _seconds(body, "responseTimeoutInSeconds", allowed, usual)
        connect = _seconds(body, "connectTimeoutInSeconds", limits.METHOD_CONNECT_TIMEOUT, 0)
        if connect > response:
            raise ArgumentInvalid(
                f"Device connection timeout ({span(connect)}) cannot be longer than an overall "
                f"call timeout ({span(response)})."
            )
        # A payload that is null, or left out, reaches the device as an empty body (its maintainers
        # in azure-iot-cli-extension#309).
        value = body.get("payload")
        payload = b"" if value is None else dumps(value)
        if len(payload) > limits.METHOD_PAYLOAD_BYTES:
            raise MessageTooLarge(
                f"The payload is {len(payload)} bytes; {limits.METHOD_PAYLOAD_BYTES} are allowed."
            )
        return cls(name, payload, response, connect)


class MethodResult(Struct, frozen=True):
    """The answer of a device: a status of its own choice, and a payload as the device wrote it."""

    status: int
    payload: bytes


def response_payload(body: bytes) -> bytes:
    """Return the payload of a device's response, which is `null` if the body is empty.

    Raises:
        InvalidResponseWhileProxying: the body is not JSON, not even for a lenient reader.
    """
    text = body.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        return b"null"
    if not lenient_json.accepts(text):
        raise InvalidResponseWhileProxying
    return text


def _seconds(body: JsonObject, name: str, allowed: range, default: int) -> int:
    """Return a time-out; its text counts as a number (azure-iot-cli-extension#54 sends `"30"`)."""
    value = body.get(name)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    return members.number({name: value}, name, allowed, default)
