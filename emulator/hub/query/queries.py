"""The queries of a hub: over the twins of devices and modules, and over what jobs did to devices.

The language itself is in `query/`; here it meets the hub's rows, and answers in pages.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

from msgspec import Struct

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, JsonObject
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.query import Condition, Members, Query, Source, parse, parse_condition
from emulator.hub.query.continuations import Continuation, Place
from emulator.hub.query.projections import compile_aggregation, compile_projection
from emulator.hub.registry import documents
from emulator.hub.registry.documents import QUERY_MEMBERS, TwinRow
from emulator.hub.registry.identities import Registry

# The members of devices.jobs (IoT Hub docs: queries for jobs). The docs' own sample asks for
# createdTimeUtc, which the documents have under another name.
_JOB_MEMBERS = {
    name: name
    for name in (
        "deviceId",
        "moduleId",
        "jobId",
        "jobType",
        "status",
        "startTimeUtc",
        "endTimeUtc",
        "createdDateTimeUtc",
        "lastUpdatedDateTimeUtc",
        "outcome",
        "error",
    )
} | {"createdTimeUtc": "createdDateTimeUtc"}


class Page(Struct, frozen=True):
    """A page of an answer.

    Args:
        items: the rows, as JSON values.
        type: what they are, as the header `x-ms-item-type` has it: Twin, DeviceJob, Raw.
        continuation: asks for the next page; None on the last.
    """

    items: list[Any]
    type: str
    continuation: str | None


class _Collection(Struct, frozen=True):
    """What a query goes through.

    Args:
        rows: gives its rows.
        members: how their members are read.
        place: where a row stands among them.
        document: writes a row as SELECT * has it.
        type: what the documents are.
    """

    rows: Callable[[], Iterable[Any]]
    members: Members[Any]
    place: Callable[[Any], Place]
    document: Callable[[Any], JsonObject]
    type: str


class Queries:
    """What services ask of a hub. The answers are of this moment: there is no index to lag behind.

    Args:
        statuses: tells which configurations target a twin: `{"<id>": {"status": "Applied"}}`.
        device_jobs: gives the documents of devices.jobs.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        statuses: Callable[[IdentityKey], JsonObject],
        device_jobs: Callable[[], Iterable[JsonObject]],
    ) -> None:
        self._registry = registry
        # Which configurations target a twin can be asked for, but stands in no document.
        members: Members[TwinRow] = {
            **QUERY_MEMBERS,
            "configurations": lambda row: statuses(row.identity.key),
        }
        self._collections = {
            Source.DEVICES: _Collection(
                registry.device_rows, members, _place_of_twin, documents.twin, "Twin"
            ),
            Source.MODULES: _Collection(
                registry.module_rows, members, self._place_of_module, documents.twin, "Twin"
            ),
            Source.JOBS: _Collection(
                device_jobs,
                {name: _reader(member) for name, member in _JOB_MEMBERS.items()},
                _place_of_job,
                lambda document: document,
                "DeviceJob",
            ),
        }

    def run(self, text: str, *, size: int, continuation: str | None) -> Page:
        """Answer a query with one page of at most `size` rows.

        Raises:
            ArgumentInvalid: it is no query, or the continuation is not one of this query.
        """
        query = parse(text)
        start = Continuation(left=query.top)
        if continuation is not None:
            start = Continuation.read(continuation, text)
        wanted = size if start.left is None else min(size, start.left)
        placed, write, type_ = self._answer(query)
        # In the order of their places, whatever the store's is; one more tells if this is the end.
        found = heapq.nsmallest(
            wanted + 1, (each for each in placed if each[0] > start.after), key=itemgetter(0)
        )
        page = found[:wanted]
        left = None if start.left is None else start.left - wanted
        last = len(found) <= wanted or left == 0
        following = None if last else Continuation(page[-1][0], left).token(text)
        return Page([write(row) for _, row in page], type_, following)

    def count(self, text: str) -> int:
        """Tell how many rows a query finds: the metric of a configuration.

        Raises:
            ArgumentInvalid: it is no query.
        """
        query = parse(text)
        placed, _, _ = self._answer(query)
        found = sum(1 for _ in placed)
        return found if query.top is None else min(found, query.top)

    def find(self, condition: str) -> list[IdentityKey]:
        """Name the twins that a job's condition finds.

        Args:
            condition: `*`, a WHERE clause without the word, or `FROM devices.modules [WHERE …]`.

        Raises:
            ArgumentInvalid: it is none of these.
        """
        meant = parse_condition(condition)
        if meant.source is Source.JOBS:
            raise ArgumentInvalid("BadRequest: a condition is on devices or devices.modules")
        return [row.identity.key for row in self._rows(meant)]

    def _rows(self, condition: Condition) -> Iterator[Any]:
        collection = self._collections[condition.source]
        return filter(condition.compile(collection.members), collection.rows())

    def _answer(
        self, query: Query
    ) -> tuple[Iterable[tuple[Place, Any]], Callable[[Any], JsonObject], str]:
        """Give the rows of an answer with their places, how each is written, and what they are."""
        collection = self._collections[query.source]
        rows = self._rows(Condition(query.source, query.where))
        if query.aggregates:
            aggregate = compile_aggregation(query.items or (), query.group_by, collection.members)
            groups = enumerate(aggregate(rows))
            return (((f"{number:09}",), row) for number, row in groups), lambda row: row, "Raw"
        placed = ((collection.place(row), row) for row in rows)
        if query.items is None:
            return placed, collection.document, collection.type
        return placed, compile_projection(query.items, collection.members), "Raw"

    def _place_of_module(self, row: TwinRow) -> Place:
        device = self._registry.identity(IdentityKey(row.identity.key.device_id))
        return *_place(device), *_place(row.identity)


# Places are in the order of registration, which no other row's coming or going alters.


def _place_of_twin(row: TwinRow) -> Place:
    return _place(row.identity)


def _place(identity: Identity) -> Place:
    # A generation is a moment; those that share it are told apart by their ids.
    device_id, module_id = identity.key
    return identity.generation_id.rjust(20, "0"), module_id or device_id


def _place_of_job(document: JsonObject) -> Place:
    created = str(document.get("createdDateTimeUtc", ""))
    ids = (document.get(name) or "" for name in ("jobId", "deviceId", "moduleId"))
    # Without its Z, a moment of whole seconds stands before those with a fraction.
    return created.rstrip("Z"), *ids


def _reader(name: str) -> Callable[[JsonObject], Any]:
    return lambda document: document.get(name, UNDEFINED)
