"""Events that are not telemetry, in the event log: a real hub routes them there on request.

The kinds, the properties and the bodies are from IoT Hub docs: message routing, non-telemetry
events; and from captures of real hubs.
"""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from emulator.hub.core.errors import DeviceNotFound
from emulator.hub.core.json import dumps
from emulator.hub.core.times import iso, ticks
from emulator.hub.feed import Change, Feed
from emulator.hub.identities.identity import IdentityChanged, IdentityCreated, IdentityKey
from emulator.hub.jobs.changes import JobEnded, JobStarted
from emulator.hub.links.link import Connected, Disconnected
from emulator.hub.messages.event import Origin
from emulator.hub.messages.event_log import EventLog
from emulator.hub.messages.message import Message
from emulator.hub.notifications import twin_bodies
from emulator.hub.notifications.digital_twin_patch import difference
from emulator.hub.notifications.sources import (
    CONNECTIONS,
    DIGITAL_TWIN_CHANGES,
    JOBS,
    LIFECYCLE,
    SCHEMAS,
    TWIN_CHANGES,
)
from emulator.hub.registry import digital_twins
from emulator.hub.registry.documents import TwinRow
from emulator.hub.registry.rows import Rows
from emulator.hub.twins.twin import TwinChanged, TwinDeleted

_JSON, _PATCH = "application/json", "application/json-patch+json"


class Notifications:
    """Puts changes of the hub into the event log, in order with telemetry.

    Args:
        sources: the kinds of events to put there.
        host: the host name of the hub, whose first part is the name in them.
        rows: the rows of devices and modules.
        log: the event log.
        feed: the changes.
    """

    def __init__(
        self, sources: Collection[str], host: str, rows: Rows, log: EventLog, feed: Feed
    ) -> None:
        self._hub_name = host.partition(".")[0] if host[:1].isalpha() else host
        self._rows = rows
        self._log = log
        self._numbers = itertools.count(1)
        self.count = 0
        """How many events it has put into the log."""
        handlers: tuple[tuple[str, type[Change], Callable[[Any], None]], ...] = (
            (TWIN_CHANGES, TwinChanged, self._twin_changed),
            (LIFECYCLE, IdentityCreated, self._created),
            (LIFECYCLE, TwinDeleted, self._deleted),
            (CONNECTIONS, Connected, self._connected),
            (CONNECTIONS, Disconnected, self._disconnected),
            (JOBS, JobStarted, self._job_changed),
            (JOBS, JobEnded, self._job_changed),
            (DIGITAL_TWIN_CHANGES, TwinChanged, self._digital_twin_changed),
            (DIGITAL_TWIN_CHANGES, IdentityChanged, self._model_changed),
        )
        for source, kind, handler in handlers:
            if source in sources:
                feed.subscribe(kind, handler)

    def _twin_changed(self, change: TwinChanged) -> None:
        if change.replaced:
            operation, body = "replaceTwin", twin_bodies.replaced(change.twin)
        else:
            operation, body = "updateTwin", twin_bodies.updated(change)
        self._put(TWIN_CHANGES, change.key, change.time, operation, body)

    def _created(self, change: IdentityCreated) -> None:
        if (row := self._row(change.key)) is not None:
            body = twin_bodies.created_or_deleted(row.twin)
            self._put(LIFECYCLE, change.key, change.time, "createDeviceIdentity", body)

    def _deleted(self, change: TwinDeleted) -> None:
        body = twin_bodies.created_or_deleted(change.twin)
        self._put(LIFECYCLE, change.key, change.time, "deleteDeviceIdentity", body)

    # A real hub looks at connections each minute, and does not see short ones.

    def _connected(self, change: Connected) -> None:
        self._put_connection(change.admission.key, change.time, "deviceConnected")

    def _disconnected(self, change: Disconnected) -> None:
        self._put_connection(change.link.key, change.time, "deviceDisconnected")

    def _put_connection(self, key: IdentityKey, time: datetime, operation: str) -> None:
        # 64 hexadecimal digits; as texts, those of a device grow, over restarts too.
        body = {"sequenceNumber": f"{ticks(time) << 64 | next(self._numbers):064X}"}
        self._put(CONNECTIONS, key, time, operation, body, correlation_id=str(uuid.uuid4()))

    def _job_changed(self, change: JobStarted | JobEnded) -> None:
        """The docs have no body, no operation and no schema for these events: all are ours."""
        job = change.job
        started = isinstance(change, JobStarted)
        time = job.ended or self._log.now()
        body = {"jobId": job.key.id, "type": job.type.value, "status": job.status.value}
        self._put(JOBS, None, time, "jobStarted" if started else "jobEnded", body)

    def _digital_twin_changed(self, change: TwinChanged) -> None:
        """Put the change of a device that has a model (IoT Plug and Play docs)."""
        row = self._row(change.key) if change.key.module_id is None else None
        if row is not None and row.identity.model_id:
            before, after = (
                digital_twins.document(replace(row, twin=twin))
                for twin in (change.before, change.twin)
            )
            self._put_patch(row, change.time, difference(before, after))

    def _model_changed(self, change: IdentityChanged) -> None:
        if change.key.module_id is not None or change.identity.model_id == change.before.model_id:
            return
        if (row := self._row(change.key)) is not None:
            before = digital_twins.document(replace(row, identity=change.before))
            self._put_patch(row, change.time, difference(before, digital_twins.document(row)))

    def _row(self, key: IdentityKey) -> TwinRow | None:
        """Return the row of an identity; None if another subscriber has deleted it."""
        try:
            return self._rows.row(key)
        except DeviceNotFound:
            return None

    def _put_patch(self, row: TwinRow, time: datetime, patch: list[Any]) -> None:
        if patch:
            key = row.identity.key
            self._put(DIGITAL_TWIN_CHANGES, key, time, "updateTwin", patch, content_type=_PATCH)

    def _put(
        self,
        source: str,
        key: IdentityKey | None,
        time: datetime,
        operation: str,
        body: object,
        *,
        content_type: str = _JSON,
        correlation_id: str | None = None,
    ) -> None:
        """Put an event into the log, with the properties that all have."""
        time_text = iso(time)
        if source == DIGITAL_TWIN_CHANGES:  # seen on a real hub
            time_text = time_text.removesuffix("Z") + "+00:00"
        ids = {} if key is None else {"deviceId": key.device_id, "moduleId": key.module_id}
        properties = {
            "hubName": self._hub_name,
            **{name: value for name, value in ids.items() if value is not None},
            "operationTimestamp": time_text,
            "opType": operation,
            "iothub-message-schema": SCHEMAS[source],
        }
        system = {
            "user-id": self._hub_name,
            "correlation-id": correlation_id or secrets.token_hex(6),
            "content-type": content_type,
            "content-encoding": "utf-8",
        }
        message = Message(dumps(body), system, properties)
        self._log.extend(Origin(key, source), [message])
        self.count += 1
