"""Queries over enrollments and registrations, with answers in pages.

Every sample and SDK asks for all of them. A condition is that of the hub's own query language (DPS
REST docs: query).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, JsonObject
from emulator.hub.core.places import Place
from emulator.hub.core.slices import Work
from emulator.hub.core.store import Key
from emulator.hub.core.times import ticks
from emulator.hub.query import parse_in
from emulator.hub.query.continuations import Continuation, Page, encode
from emulator.hub.query.expressions import compile_condition

# Of a text without white space at its ends: to look for that here takes the square of its length.
_QUERY = re.compile(
    r"SELECT\s+\*(\s+FROM\s+\w+)?(\s+WHERE\s+(?P<condition>.+))?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
# What az with the extension azure-iot 0.25 sends: its query in the text of an object of Python.
_OF_AZ = re.compile(r"\{'additional_properties': \{\}, 'query': '(?P<query>.*)'\}", re.DOTALL)

# The members that a condition can begin with.
_MEMBERS = (
    *("registrationId", "enrollmentGroupId", "deviceId", "attestation", "capabilities"),
    *("iotHubHostName", "initialTwin", "etag", "provisioningStatus", "reprovisionPolicy"),
    *("createdDateTimeUtc", "lastUpdatedDateTimeUtc", "allocationPolicy", "iotHubs"),
    *("customAllocationDefinition", "optionalDeviceInformation", "registrationState"),
    *("assignedHub", "status", "substatus", "errorCode", "errorMessage", "payload"),
)


def _reader(name: str) -> Callable[[JsonObject], Any]:
    return lambda row: row.get(name, UNDEFINED)


_READERS = {name: _reader(name) for name in _MEMBERS}


class _Row(Protocol):
    @property
    def key(self) -> Key: ...

    @property
    def created(self) -> datetime: ...


R = TypeVar("R", bound=_Row)


async def page(
    records: Sequence[R],
    write: Callable[[R], JsonObject],
    kind: str,
    text: str,
    *,
    size: int,
    continuation: str | None,
    work: Work,
) -> Page:
    """Return a page of the records that a query finds.

    Args:
        records: all records that it is about.
        write: returns the document of a record.
        kind: the type of the documents.
        text: the query.
        size: the largest number of documents.
        continuation: the token of the page; None is the first one.
        work: the work that this is a part of.

    Raises:
        ArgumentInvalid: the query or the continuation is invalid.
    """
    of_az = _OF_AZ.fullmatch(text)
    match = _QUERY.fullmatch((of_az["query"] if of_az else text).strip())
    if match is None:
        raise ArgumentInvalid(
            f"The query is not of the form SELECT * [FROM …] [WHERE …]: {text[:100]}"
        )
    matches: Callable[[JsonObject], bool] = lambda row: True  # noqa: E731
    if match["condition"]:
        condition = await parse_in(work, match["condition"], condition=True)
        matches = compile_condition(condition, _READERS)
    start = Continuation.read(continuation, text)
    places: list[tuple[Place, int]] = []
    for index, each in enumerate(records):
        places.append((_place(each), index))
        if work.over:
            await work.rest()
    places.sort()  # it takes little time: they are nearly in order

    def found() -> Iterator[tuple[Place, bytes | None]]:
        for place, index in places:
            if place > start.after or not start.after:
                document = write(records[index])
                yield place, encode(document) if matches(document) else None

    return await start.page(found(), size, text, kind, work)


def _place(record: _Row) -> Place:
    """Return the place of a record: by the time of its creation, of 18 digits."""
    return (str(ticks(record.created)), str(record.key[-1]))
