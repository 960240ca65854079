"""The queries of a hub: over the twins of devices and modules, and over other collections.

The other modules of this package are the language. This one applies it to rows, and returns pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.query import Members, Query, Source, parse, parse_condition
from emulator.hub.query.continuations import Continuation, Place
from emulator.hub.query.expressions import compile_condition
from emulator.hub.query.projections import compile_aggregation, compile_projection
from emulator.hub.registry import documents
from emulator.hub.registry.documents import QUERY_MEMBERS, TwinRow
from emulator.hub.registry.rows import Rows


class Page(Struct, frozen=True):
    """A page of an answer.

    Args:
        items: the rows, as JSON values.
        type: their type, in the words of the header `x-ms-item-type`: Twin, DeviceJob, Raw.
        continuation: the token for the next page; None on the last page.
    """

    items: list[Any]
    type: str
    continuation: str | None


class Collection(Struct, frozen=True):
    """The rows that queries over one source read.

    Args:
        rows: returns the rows.
        members: the readers of their members.
        place: returns the place of a row among the others.
        document: returns a row in the form of SELECT *.
        type: the type of these documents.
    """

    rows: Callable[[], Iterable[Any]]
    members: Members[Any]
    place: Callable[[Any], Place]
    document: Callable[[Any], JsonObject]
    type: str


class Queries:
    """The queries of services. The answers are of this moment: no index lags behind."""

    def __init__(self, rows: Rows) -> None:
        self._twin_rows = rows
        self._members: dict[str, Callable[[TwinRow], Any]] = dict(QUERY_MEMBERS)
        self._collections = {
            Source.DEVICES: Collection(rows.devices, self._members, _place, documents.twin, "Twin"),
            Source.MODULES: Collection(
                rows.modules, self._members, self._place_of_module, documents.twin, "Twin"
            ),
        }

    def add_collection(self, source: Source, collection: Collection) -> None:
        """Add rows of another kind, which a later feature owns."""
        self._collections[source] = collection

    def add_member(self, name: str, read: Callable[[TwinRow], Any]) -> None:
        """Add a member that queries can read of a twin, and that is part of no document."""
        self._members[name] = read

    def run(self, text: str, *, size: int, continuation: str | None) -> Page:
        """Answer a query with one page of at most `size` rows.

        Raises:
            ArgumentInvalid: the query is invalid, or the continuation is of another query.
        """
        query = parse(text)
        start = Continuation.read(continuation, text, query.top)
        placed, write, type_ = self._answer(query)
        rows, following = start.page(placed, size, text)
        return Page([write(row) for row in rows], type_, following)

    def count(self, text: str) -> int:
        """Return how many rows a query finds: the metric of a configuration.

        Raises:
            ArgumentInvalid: the query is invalid.
        """
        query = parse(text)
        found = sum(1 for _ in self._answer(query)[0])
        return found if query.top is None else min(found, query.top)

    def find(self, condition: str) -> list[IdentityKey]:
        """Return the keys of the twins that a job's condition finds.

        Args:
            condition: `*`, a WHERE clause without the word, or `FROM devices.modules [WHERE …]`.

        Raises:
            ArgumentInvalid: the condition is invalid.
        """
        parsed = parse_condition(condition)
        if parsed.source is Source.JOBS:
            raise ArgumentInvalid("BadRequest: a condition is on devices or devices.modules")
        return [row.identity.key for row in self._rows(parsed)]

    def _rows(self, query: Query) -> Iterator[Any]:
        collection = self._collections[query.source]
        return filter(compile_condition(query, collection.members), collection.rows())

    def _answer(
        self, query: Query
    ) -> tuple[Iterable[tuple[Place, Any]], Callable[[Any], JsonObject], str]:
        """Return the rows of an answer with their places, how to write one, and their type."""
        collection = self._collections[query.source]
        rows = self._rows(query)
        if query.aggregates:
            aggregate = compile_aggregation(query.items or (), query.group_by, collection.members)
            groups = enumerate(aggregate(rows))
            return (((f"{number:09}",), row) for number, row in groups), lambda row: row, "Raw"
        placed = ((collection.place(row), row) for row in rows)
        if query.items is None:
            return placed, collection.document, collection.type
        return placed, compile_projection(query.items, collection.members), "Raw"

    def _place_of_module(self, row: TwinRow) -> Place:
        device = self._twin_rows.row(IdentityKey(row.identity.key.device_id))
        return *_place(device), *_place(row)


# Places are in the order of creation: no other row can change them.


def _place(row: TwinRow) -> Place:
    # A generation id is a time; identities of the same time are ordered by their ids.
    device_id, module_id = row.identity.key
    return row.identity.generation_id.rjust(20, "0"), module_id or device_id
