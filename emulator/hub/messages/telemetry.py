"""Telemetry: the messages that devices and modules send."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from emulator.hub.core.clock import Clock
from emulator.hub.core.store import Store
from emulator.hub.faults import requests
from emulator.hub.faults.faults import Faults
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.links.links import Links
from emulator.hub.messages.event import TELEMETRY, Origin
from emulator.hub.messages.event_log import Done, EventLog
from emulator.hub.messages.message import Message


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

    def ingest(self, sender: Admission, messages: Iterable[Message]) -> None:
        """Stamp the messages of one sender, and log them (IoT Hub docs: device-to-cloud).

        Raises:
            ServiceUnavailable: see `EventLog.extend`.
        """
        now, messages = self._note(sender), self._take_requests(sender.key, messages)
        self._log.extend(Origin(sender.key, TELEMETRY, sender), messages, now)

    def ingest_soon(self, sender: Admission, messages: Iterable[Message], done: Done) -> None:
        """As `ingest`, together with the messages of other senders; see `EventLog.extend_soon`."""
        now, messages = self._note(sender), self._take_requests(sender.key, messages)
        self._log.extend_soon(Origin(sender.key, TELEMETRY, sender), messages, now, done)

    def flush(self) -> None:
        """Log the messages that wait."""
        self._log.flush()

    def _note(self, sender: Admission) -> datetime:
        """Note the activity of a sender, and return the time."""
        now, key = self._clock.now(), sender.key
        # The will of a deleted device comes after its deletion: then the device is unknown.
        if self._store.get(Identity, key) is not None:
            self._links.note_activity(key, now)
        return now

    def _take_requests(self, key: IdentityKey, messages: Iterable[Message]) -> Iterable[Message]:
        """Do what fault requests ask for, if the hub takes any; return the other messages."""
        if not self._faults.takes_requests:
            return messages
        telemetry = []
        for message in messages:
            if requests.is_request(message.properties):
                requests.take(self._faults, self._clock, key, message.properties)
            else:
                telemetry.append(message)
        return telemetry
