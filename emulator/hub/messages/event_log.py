"""The messages that devices send, and the event log: what the built-in endpoint sends to readers.

The log is bounded: the oldest events make room for new ones. Each reader pulls at its own pace. A
reader that is too slow finds a gap in the sequence numbers.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock, SystemClock
from emulator.hub.core.json import JsonObject, loads
from emulator.hub.core.signals import Signal
from emulator.hub.core.store import Store
from emulator.hub.core.times import iso
from emulator.hub.identities.identity import Identity
from emulator.hub.links.link import Admission
from emulator.hub.links.links import Links
from emulator.hub.messages.message import Message


class Event(Struct, frozen=True, gc=False):
    """A message in the log, as the hub stamped it (IoT Hub docs: read device-to-cloud messages).

    Args:
        sequence_number: counts the hub's events, from 0 (Event Hubs).
        sender: the device or module that sent it, and how it authenticated.
        size: the size of the message.
    """

    sequence_number: int
    enqueued: datetime
    sender: Admission
    message: Message
    size: int

    @property
    def annotations(self) -> JsonObject:
        """What the hub adds to the message, by the names of Event Hubs."""
        annotations: JsonObject = {"iothub-connection-device-id": self.sender.key.device_id}
        if self.sender.key.module_id is not None:
            annotations["iothub-connection-module-id"] = self.sender.key.module_id
        annotations |= {
            "iothub-connection-auth-method": self.sender.auth_method,
            "iothub-connection-auth-generation-id": self.sender.generation_id,
            "iothub-enqueuedtime": int(self.enqueued.timestamp() * 1000),
            "iothub-message-source": "Telemetry",
        }
        if self.sender.model_id:
            annotations["dt-dataschema"] = self.sender.model_id
        if "dt-subject" in self.message.system:
            annotations["dt-subject"] = self.message.system["dt-subject"]
        return annotations

    def document(self) -> JsonObject:
        """Return the event as JSON; by its content type, its body is JSON, or text, or Base64."""
        return {
            "sequenceNumber": self.sequence_number,
            "enqueuedTime": iso(self.enqueued),
            "deviceId": self.sender.key.device_id,
            "moduleId": self.sender.key.module_id,
            "systemProperties": dict(self.message.system),
            "properties": dict(self.message.properties),
            "annotations": self.annotations,
            **_body(self.message),
        }


class EventLog:
    """The events of all devices, in order.

    Args:
        events: how many it holds at most.
        size: how many bytes its messages take at most.
    """

    def __init__(
        self,
        events: int = limits.EVENT_LOG_EVENTS,
        size: int = limits.EVENT_LOG_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._max_events = events
        self._max_size = size
        self._events: deque[Event] = deque()
        self._size = 0
        self._next = 0
        self._appended = Signal(clock or SystemClock())

    def extend(self, sender: Admission, messages: Iterable[Message], now: datetime) -> None:
        """Stamp messages of one sender, and keep them."""
        for message in messages:
            event = Event(self._next, now, sender, message, message.size)
            self._events.append(event)
            self._next += 1
            self._size += event.size
        while len(self._events) > self._max_events or self._size > self._max_size:
            self._size -= self._events.popleft().size
        self._appended.send()

    def read(self, start: int = 0, device_id: str | None = None) -> list[Event]:
        """List the events from sequence number `start` on, of all devices or of one."""
        # The numbers in the log have no gaps, so they tell where `start` is.
        skip = max(start - (self._next - len(self._events)), 0)
        return [
            event
            for event in itertools.islice(self._events, skip, None)
            if device_id in (None, event.sender.key.device_id)
        ]

    async def wait(
        self, start: int, device_id: str | None = None, *, seconds: float
    ) -> list[Event]:
        """Return the events from `start` on; wait up to `seconds` if the log has none yet."""

        def find() -> list[Event]:
            nonlocal start
            events = self.read(start, device_id)
            start = max(start, self._next)
            return events

        return await self._appended.wait_for(find, seconds)

    @property
    def end(self) -> int:
        """The sequence number that the next event will have."""
        return self._next


class Telemetry:
    """Receives the messages of devices and modules, and puts them into the event log."""

    def __init__(self, store: Store, links: Links, log: EventLog, clock: Clock) -> None:
        self._store = store
        self._links = links
        self._log = log
        self._clock = clock

    def ingest(self, sender: Admission, messages: Iterable[Message]) -> None:
        """Stamp the messages of one sender, and log them (IoT Hub docs: device-to-cloud)."""
        now, key = self._clock.now(), sender.key
        # The will of a deleted device comes after its deletion: then the device is unknown.
        if self._links.knows(key) or self._store.get(Identity, key) is not None:
            self._links.note_activity(key, now)
        self._log.extend(sender, messages, now)


def _body(message: Message) -> JsonObject:
    try:
        text = message.body.decode()
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(message.body).decode()}
    if message.system.get("content-type") == "application/json":
        with contextlib.suppress(ValueError):  # then it is no more than text
            return {"body": loads(text)}
    return {"body": text}
