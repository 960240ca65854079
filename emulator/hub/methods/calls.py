"""Direct methods: what a caller may ask for, and the calls that are in flight.

The rules are those of IoT Hub docs: direct methods, and of what was seen on a real hub.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    DeserializationError,
    DeviceMaximumInflightMethodExceeded,
    GatewayTimeout,
    HubError,
    MessageTooLarge,
)
from emulator.hub.core.json import dumps, loads
from emulator.hub.core.times import span
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.connections import DeviceLink


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
        if not isinstance(body, dict):
            raise DeserializationError
        name = body.get("methodName")
        if name is None or name == "":
            raise ArgumentNull("methodName is missing")
        if not isinstance(name, str) or len(name) > limits.METHOD_NAME_LENGTH:
            raise ArgumentInvalid(
                f"methodName is not a string of at most {limits.METHOD_NAME_LENGTH} characters"
            )
        response = _timeout(
            body, "responseTimeoutInSeconds", limits.METHOD_RESPONSE_TIMEOUT,
            limits.METHOD_RESPONSE_TIMEOUT_DEFAULT,
        )  # fmt: skip
        connect = _timeout(body, "connectTimeoutInSeconds", limits.METHOD_CONNECT_TIMEOUT, 0)
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


class MethodCalls:
    """The direct methods that wait for a device's answer."""

    def __init__(self) -> None:
        self._open: dict[IdentityKey, dict[str, asyncio.Future[MethodResult]]] = {}
        self._numbers = itertools.count(1)

    async def call(
        self, link: DeviceLink, request: MethodRequest, *, timeout: float
    ) -> MethodResult:
        """Send the method to the device, and wait `timeout` seconds for its answer.

        Raises:
            GatewayTimeout: no answer in time.
            DeviceMaximumInflightMethodExceeded: the device has too many calls open.
            HubError: what `abandon` was given, when the device went away meanwhile.
        """
        calls = self._open.setdefault(link.key, {})
        if len(calls) >= limits.METHODS_IN_FLIGHT_PER_DEVICE:
            raise DeviceMaximumInflightMethodExceeded
        request_id = f"{next(self._numbers):x}"
        answer = asyncio.get_running_loop().create_future()
        calls[request_id] = answer
        try:
            link.invoke_method(request_id, request.name, request.payload)
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise GatewayTimeout(info={"timeout": span(request.response_timeout)}) from None
        finally:
            calls.pop(request_id, None)
            if not calls and self._open.get(link.key) is calls:
                del self._open[link.key]

    def complete(self, key: IdentityKey, request_id: str, status: int, body: bytes) -> None:
        """Take a device's answer; a late, a second or an unknown one is ignored."""
        answer = self._open.get(key, {}).get(request_id)
        if answer is None or answer.done():
            return
        if len(body) > limits.METHOD_PAYLOAD_BYTES:
            answer.set_exception(MessageTooLarge("The device's response is too large."))
        else:
            answer.set_result(MethodResult(status, _response_payload(body)))

    def abandon(self, key: IdentityKey, reason: HubError) -> None:
        """Fail every open call of a device that is gone."""
        for answer in self._open.pop(key, {}).values():
            if not answer.done():
                answer.set_exception(reason)


def _timeout(body: dict[str, Any], name: str, allowed: range, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise ArgumentInvalid(
            f"{name} ({value}) must be within [{allowed.start}; {allowed.stop - 1}]"
        )
    return value


def _response_payload(body: bytes) -> Any:
    if not body:
        return None
    try:
        return loads(body)
    except ValueError:
        # What a real hub makes of an answer that is not JSON is not known. Its text, as a JSON
        # string, loses nothing and shows the caller what came.
        return body.decode("utf-8", "replace")
