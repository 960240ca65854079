"""What tests see of a hub: events, calls of methods, and answers, with plain Python values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct

from emulator.hub.core.json import UNDEFINED, JsonObject, dumps
from emulator.hub.messages import event as hub_event
from emulator.hub.methods import calls
from emulator.hub.methods.request import MethodResult
from emulator.hub.uploads.ended import EndedUpload


class Event(Struct, frozen=True):
    """A message of a device in the event log, or an event of the hub itself.

    Args:
        number: counts the events of the hub, from 0.
        device: the device; None if the event is about no device.
        module: the module.
        body: the decoded body: JSON if it is an object or an array, or if the content type says
            so; else a text, or bytes that are not UTF-8.
        content: the bytes of the body.
        properties: the application properties; None is a property without a value.
        system_properties: by their names in AMQP, such as `message-id` and `content-type`.
        annotations: what the hub added, such as `iothub-connection-auth-method`.
        source: `Telemetry`, or the kind of an event of the hub, such as `twinChangeEvents`.
        enqueued: when the hub received it.
    """

    number: int
    device: str | None
    module: str | None
    body: Any
    content: bytes
    properties: Mapping[str, str | None]
    system_properties: Mapping[str, str]
    annotations: JsonObject
    source: str
    enqueued: datetime

    @classmethod
    def of(cls, event: hub_event.Event) -> Event:
        """Return an event of the hub as tests see it."""
        key = event.origin.key
        return cls(
            event.number,
            key and key.device_id,
            key and key.module_id,
            _body(event),
            event.message.body,
            dict(event.message.properties),
            dict(event.message.system),
            event.annotations,
            event.origin.source,
            event.enqueued,
        )


class Device(NamedTuple):
    """A registered device."""

    id: str
    connection_string: str


class MethodAnswer(Struct, frozen=True):
    """The answer of a device to a direct method.

    Args:
        status: a number of the device's choice.
        payload: JSON as Python values; a text, if the device's JSON is not strict.
    """

    status: int
    payload: Any

    @classmethod
    def of(cls, result: MethodResult) -> MethodAnswer:
        """Return an answer of the hub as tests see it."""
        return cls(result.status, _payload(result.payload))


class MethodCall(Struct, frozen=True):
    """A direct method that a device received; without an answer and an error, it is open.

    Args:
        device: the device.
        module: the module.
        method: the name of the method.
        payload: JSON as Python values.
        answer: the answer.
        error: why there is no answer.
    """

    device: str
    module: str | None
    method: str
    payload: Any
    answer: MethodAnswer | None
    error: str | None

    @classmethod
    def of(cls, call: calls.MethodCall) -> MethodCall:
        """Return a call of the hub as tests see it."""
        return cls(
            call.key.device_id,
            call.key.module_id,
            call.request.name,
            _payload(call.request.payload or b"null"),
            MethodAnswer.of(call.result) if call.result else None,
            call.error,
        )

    def __str__(self) -> str:
        """Return `reboot of thermostat with {'delay': 1}: 200 None`."""
        name = f"{self.device}/{self.module}" if self.module else self.device
        outcome = self.error or "no answer yet"
        if self.answer is not None:
            outcome = f"{self.answer.status} {self.answer.payload!r}"
        return f"{self.method} of {name} with {self.payload!r}: {outcome}"


class Upload(Struct, frozen=True):
    """A file that a device has reported, as uploaded or as failed.

    Args:
        number: counts the reports of the hub, from 0.
        device: the device.
        name: the name of the file.
        success: whether the device has reported success.
        uri: the URI of the file in the storage; None after a failure.
        size: its size in bytes; None after a failure.
        status: the number that the device has reported.
        description: the text that the device has reported.
    """

    number: int
    device: str
    name: str
    success: bool
    uri: str | None
    size: int | None
    status: int | None
    description: str | None

    @classmethod
    def of(cls, ended: EndedUpload) -> Upload:
        """Return an upload of the hub as tests see it."""
        return cls(
            ended.number,
            ended.upload.device_id,
            ended.upload.name,
            ended.report.is_success,
            ended.blob.uri if ended.blob else None,
            ended.blob.size if ended.blob else None,
            ended.report.status_code,
            ended.report.status_description,
        )


def plain(value: object) -> Any:
    """Return a JSON value of the hub with Python's own numbers."""
    return json.loads(dumps(value))


def given(value: object) -> Any:
    """Return a JSON value of a test as a copy.

    Raises:
        TypeError: it is not a JSON value.
        ValueError: a number in it is infinite, or not a number.
    """
    text = dumps(value)
    if b"null" in text:  # orjson writes such a number so, and null removes a member of a twin
        try:
            json.dumps(value, allow_nan=False, default=str)
        except ValueError:
            raise ValueError("NaN and infinite numbers are not JSON. Use a finite one.") from None
    return json.loads(text)


def _body(event: hub_event.Event) -> Any:
    value, content_type = event.json(), event.message.system.get("content-type", "")
    if isinstance(value, dict | list) or (value is not UNDEFINED and "json" in content_type):
        return plain(value)
    try:
        return event.message.body.decode()
    except UnicodeDecodeError:
        return event.message.body


def _payload(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode(errors="replace")
