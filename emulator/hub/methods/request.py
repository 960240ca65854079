"""The request of a direct method, and its result.

The rules are those of IoT Hub docs: direct methods, and of what was seen on a real hub.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid, ArgumentNull, MessageTooLarge
from emulator.hub.core.json import dumps, loads
from emulator.hub.core.times import span

METHOD = members.Form(
    *("methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds")
)


class MethodRequest(Struct, frozen=True):
    """A direct method to invoke: its name, its payload as JSON text, its time-outs in seconds."""

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
        response = members.number(body, "responseTimeoutInSeconds", allowed, usual)
        connect = members.number(body, "connectTimeoutInSeconds", limits.METHOD_CONNECT_TIMEOUT, 0)
        if connect > response:
            raise ArgumentInvalid(
                f"Device connection timeout ({span(connect)}) cannot be longer than an overall "
                f"call timeout ({span(response)})."
            )
        # A payload left out reaches the device as null: what a real hub sends is not known, and
        # every SDK takes null and an empty body for the same.
        payload = dumps(body.get("payload"))
        if len(payload) > limits.METHOD_PAYLOAD_BYTES:
            raise MessageTooLarge(
                f"The payload is {len(payload)} bytes; {limits.METHOD_PAYLOAD_BYTES} are allowed."
            )
        return cls(name, payload, response, connect)


class MethodResult(Struct, frozen=True):
    """What the device answered: a status of its own choice, and a JSON value."""

    status: int
    payload: Any


def response_payload(body: bytes) -> Any:
    """Return the payload of a device's response; None if it is empty."""
    if not body:
        return None
    try:
        return loads(body)
    except ValueError:
        # What a real hub makes of an answer that is not JSON is not known. Its text, as a JSON
        # string, loses nothing and shows the caller what came.
        return body.decode("utf-8", "replace")
