"""An event: a message in the event log, as the hub stamped it."""

from __future__ import annotations

import base64
import contextlib
from datetime import datetime
from typing import Any

from msgspec import Struct

from emulator.hub.core.json import UNDEFINED, JsonObject, loads
from emulator.hub.core.times import iso, milliseconds
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.message import Message

TELEMETRY = "Telemetry"
"""The source of the messages that devices send."""


class PartitionName(Struct, frozen=True):
    """What an event knows of its partition.

    Args:
        number: the partition's place among all, from 0.
        first_offset: the offset of its first event.
    """

    number: int
    first_offset: int

    @property
    def id(self) -> str:
        """Its name for readers (Event Hubs)."""
        return str(self.number)


class Origin(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where events come from.

    Args:
        key: the device or module that an event is about, or that sent it; None if it is about none.
        source: the kind of the event.
        sender: how the sender of telemetry authenticated; None for other events.
    """

    key: IdentityKey | None
    source: str = TELEMETRY
    sender: Admission | None = None

    def annotations(self) -> JsonObject:
        """Return what the hub adds to each message from here, by the names of IoT Hub."""
        annotations: JsonObject = {}
        if self.key is not None:
            annotations["iothub-connection-device-id"] = self.key.device_id
            if self.key.module_id is not None:
                annotations["iothub-connection-module-id"] = self.key.module_id
        # Events that are not telemetry have no sender (seen on a real hub).
        if self.sender is not None:
            annotations["iothub-connection-auth-method"] = self.sender.auth_method
            annotations["iothub-connection-auth-generation-id"] = self.sender.generation_id
        annotations["iothub-message-source"] = self.source
        if self.sender is not None and self.sender.model_id:
            annotations["dt-dataschema"] = self.sender.model_id
        return annotations


class Event(Struct, frozen=True, gc=False):
    """A message in the log (IoT Hub docs: read device-to-cloud messages).

    Args:
        number: counts the hub's events, from 0.
        partition: the part of the log that has it.
        sequence_number: counts the partition's events, from 0 (Event Hubs).
        origin: the device or module, and the kind of the event.
    """

    number: int
    partition: PartitionName
    sequence_number: int
    enqueued: datetime
    origin: Origin
    message: Message

    @property
    def device_id(self) -> str | None:
        """The device that it is from, or about."""
        return self.origin.key and self.origin.key.device_id

    @property
    def offset(self) -> str:
        """Its place in the partition, for readers that continue later: a text (Event Hubs)."""
        return str(self.partition.first_offset + self.sequence_number)

    @property
    def enqueued_ms(self) -> int:
        """When the hub received it, in milliseconds since 1970."""
        return milliseconds(self.enqueued)

    @property
    def annotations(self) -> JsonObject:
        """What the hub adds to the message, by the names of IoT Hub."""
        annotations = {**self.origin.annotations(), "iothub-enqueuedtime": self.enqueued_ms}
        if "dt-subject" in self.message.system:
            annotations["dt-subject"] = self.message.system["dt-subject"]
        return annotations

    def json(self) -> Any:
        """Return the body as JSON, also if no content type says so; UNDEFINED if it is not JSON."""
        with contextlib.suppress(ValueError):
            return loads(self.message.body)
        return UNDEFINED

    def document(self) -> JsonObject:
        """Return the event as JSON; by its content type, its body is JSON, or text, or Base64."""
        return {
            "sequenceNumber": self.number,
            "enqueuedTime": iso(self.enqueued),
            "partitionId": self.partition.id,
            "partitionSequenceNumber": self.sequence_number,
            "offset": self.offset,
            "deviceId": self.device_id,
            "moduleId": self.origin.key and self.origin.key.module_id,
            "systemProperties": dict(self.message.system),
            "properties": dict(self.message.properties),
            "annotations": self.annotations,
            **_body(self.message),
        }


def _body(message: Message) -> JsonObject:
    try:
        text = message.body.decode()
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(message.body).decode()}
    if message.system.get("content-type") == "application/json":
        with contextlib.suppress(ValueError):  # not JSON: the text itself
            return {"body": loads(text)}
    return {"body": text}
