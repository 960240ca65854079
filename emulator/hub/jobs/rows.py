"""The rows of `devices.jobs`: queries over what scheduled jobs did to each device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from emulator.hub.core.json import UNDEFINED, JsonObject, loads
from emulator.hub.query.continuations import Place
from emulator.hub.query.queries import Collection

# IoT Hub docs: queries for jobs. The sample of the docs asks for createdTimeUtc, which the
# documents have under another name.
_MEMBERS = (
    *("deviceId", "moduleId", "jobId", "jobType", "status", "startTimeUtc", "endTimeUtc"),
    *("createdDateTimeUtc", "lastUpdatedDateTimeUtc", "outcome", "error"),
)


def device_jobs_collection(documents: Callable[[], Iterable[JsonObject]]) -> Collection:
    """Return the collection for queries over these documents."""
    readers = {name: _reader(name) for name in _MEMBERS}
    readers["createdTimeUtc"] = readers["createdDateTimeUtc"]
    readers["outcome"] = _outcome
    return Collection(documents, readers, _place, lambda document: document, "DeviceJob")


def _place(document: JsonObject) -> Place:
    created = str(document.get("createdDateTimeUtc", ""))
    ids = (document.get(name) or "" for name in ("jobId", "deviceId", "moduleId"))
    # Without its Z, a time of whole seconds stands before those with a fraction.
    return created.rstrip("Z"), *ids


def _outcome(document: JsonObject) -> JsonObject:
    """Return the outcome with the value of its payload; one that is not quite JSON has no value."""
    outcome: JsonObject = document["outcome"]
    response = outcome.get("deviceMethodResponse")
    if not response:
        return outcome
    try:
        payload = loads(response["payload"].text)
    except ValueError:
        return outcome
    return {"deviceMethodResponse": {**response, "payload": payload}}


def _reader(name: str) -> Callable[[JsonObject], Any]:
    return lambda document: document.get(name, UNDEFINED)
