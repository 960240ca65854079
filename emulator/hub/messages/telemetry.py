"""Telemetry: the messages that devices and modules send."""

from __future__ import annotations

import math
from collections.abc import Iterable

from emulator.hub.core.clock import Clock
from emulator.hub.core.store import Store
from emulator.hub.faults import requests
from emulator.hub.faults.faults import Faults
from emulator.hub.identities.identity import Identity
from emulator.hub.links.link import Admission
from emulator.hub.links.links import Links
from emulator.hub.messages.event import TELEMETRY, Origin
from emulator.hub.messages.event_log import Done, EventLog
from emulator.hub.messages.message import Message

# How exact the time of the last activity is, in seconds.
_ACTIVITY = 1.0


class Telemetry:
    """Receives the messages of devices and modules, and puts them into the event log."""

    def __init__(
        self, store: Store, links: Links, log: EventLog, clock: Clock, faults: Faults
    ) -> None:
        self._store = store
        self._links = links
        self._log = log
        self._clock = clock
        self._faults = faults

    def sender(self, admission: Admission) -> Sender:
        """Return the sender of a device or module: a connection keeps it."""
        return Sender(admission, self._store, self._links, self._log, self._clock, self._faults)

    def flush(self) -> None:
        """Log the messages that wait."""
        self._log.flush()


class Sender:
    """A device or module that sends messages."""

    def __init__(
        self,
        admission: Admission,
        store: Store,
        links: Links,
        log: EventLog,
        clock: Clock,
        faults: Faults,
    ) -> None:
        self.admission = admission
        """How the device or module was admitted."""
        self._key = admission.key
        self._origin = Origin(admission.key, TELEMETRY, admission)
        self._place = log.place_of(admission.key.device_id)
        self._store = store
        self._links = links
        self._log = log
        self._clock = clock
        self._faults = faults
        self._noted_until = -math.inf  # its last activity, as the clock's `monotonic` counts

    def ingest(self, messages: Iterable[Message]) -> None:
        """Stamp messages, and log them (IoT Hub docs: device-to-cloud).

        Raises:
            ServiceUnavailable: see `EventLog.extend`.
        """
        self._note()
        self._log.extend(self._origin, self._take_requests(messages))

    def ingest_soon(self, messages: Iterable[Message], done: Done) -> None:
        """As `ingest`, together with the messages of other senders; see `EventLog.extend_soon`."""
        if self._clock.monotonic() >= self._noted_until:
            self._note()
        if self._faults.takes_requests:
            messages = self._take_requests(messages)
        self._log.extend_soon(self._place, self._origin, messages, done)

    def _note(self) -> None:
        """Note the activity of the sender."""
        self._noted_until = self._clock.monotonic() + _ACTIVITY
        # The will of a deleted device comes after its deletion: then the device is unknown.
        if self._store.get(Identity, self._key) is not None:
            self._links.note_activity(self._key)

    def _take_requests(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Do what fault requests ask for, if the hub takes any; return the other messages."""
        if not self._faults.takes_requests:
            return messages
        telemetry = []
        for message in messages:
            if requests.is_request(message.properties):
                requests.take(self._faults, self._clock, self._key, message.properties)
            else:
                telemetry.append(message)
        return telemetry
