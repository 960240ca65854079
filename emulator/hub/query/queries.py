"""The queries of a hub: over the twins of devices and modules, and over other collections.

The other modules of this package are the language. This one applies it to rows, and returns pages.

A query over many rows runs in slices, and the hub changes meanwhile. Rows are in the order of their
creation. Each row is tested, and written, as it is when the scan reaches it. A page continues after
the place of the last row of the page before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.core.places import Place
from emulator.hub.core.slices import Slices, Work
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.query import Members, Query, Source, parse_in
from emulator.hub.query.continuations import Continuation, Page, encode
from emulator.hub.query.expressions import compile_condition, steps
from emulator.hub.query.projections import Aggregation, compile_projection
from emulator.hub.query.tree import Path, expressions, walk
from emulator.hub.registry import documents
from emulator.hub.registry.documents import QUERY_MEMBERS, TwinRow
from emulator.hub.registry.rows import Rows


class Collection(Struct, frozen=True):
    """The rows that queries over one source read.

    Args:
        rows: returns the rows after a place, in order, each with its place.
        members: the readers of their members.
        document: returns a row in the form of SELECT *.
        type: the type of these documents.
    """

    rows: Callable[[Place], Iterator[tuple[Place, Any]]]
    members: Members[Any]
    document: Callable[[Any], JsonObject]
    type: str


class Budget:
    """The steps that are left for a query.

    Args:
        steps: the number of steps.
    """

    def __init__(self, steps: int = limits.QUERY_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take the steps of one row.

        Raises:
            ArgumentInvalid: they are used up.
        """
        self._left -= steps
        if self._left < 0:
            # The code of a real hub for a query that takes too long is unknown.
            raise ArgumentInvalid(
                f"BadRequest: the query takes more than {limits.QUERY_STEPS} steps. Use a shorter "
                "condition, or one that finds fewer devices"
            )


class Queries:
    """The queries of services. The answers are of this moment: no index lags behind."""

    def __init__(self, rows: Rows, slices: Slices) -> None:
        self._slices = slices
        self._members: dict[str, Callable[[TwinRow], Any]] = dict(QUERY_MEMBERS)
        self._costs: dict[str, Callable[[], int]] = {}
        twin = documents.twin
        self._collections = {
            Source.DEVICES: Collection(rows.devices, self._members, twin, "Twin"),
            Source.MODULES: Collection(rows.modules, self._members, twin, "Twin"),
        }
        # The rows of aggregations by query, the newest last: the next page needs no scan.
        self._answers: dict[str, list[tuple[Place, bytes]]] = {}

    def add_collection(self, source: Source, collection: Collection) -> None:
        """Add rows of another kind, which a later feature owns."""
        self._collections[source] = collection

    def add_member(
        self, name: str, read: Callable[[TwinRow], Any], steps: Callable[[], int]
    ) -> None:
        """Add a member that queries can read of a twin, and that is part of no document.

        Args:
            name: its name.
            read: returns its value; a query calls it once for each row.
            steps: returns how many steps it takes.
        """
        self._members[name] = _once(read)
        self._costs[name] = steps

    async def run(
        self,
        text: str,
        *,
        size: int,
        continuation: str | None,
        only: Callable[[Any], bool] | None = None,
    ) -> Page:
        """Answer a query with one page of at most `size` rows.

        Args:
            text: the query.
            size: the largest number of rows.
            continuation: the token of the page; None is the first one.
            only: a condition that the language can't express, on rows that are not aggregated.

        Raises:
            ArgumentInvalid: the query is invalid or too expensive, or the continuation is of
                another query.
            PreconditionFailed: the query is too long.
        """
        work = await self._slices.begin()
        query = await parse_in(work, text)
        start = Continuation.read(continuation, text, query.top)
        collection = self._collections[query.source]
        if query.aggregates:
            answer = self._answers.pop(text, None)
            if answer is None or continuation is None:
                answer = await self._aggregate(query, work)
            rest = ((place, row) for place, row in answer if place > start.after or not start.after)
            page = await start.page(rest, size, text, "Raw", work)
            if page.continuation is not None:
                self._answers[text] = answer
                while len(self._answers) > limits.QUERY_ANSWERS_HELD:
                    del self._answers[next(iter(self._answers))]
            return page
        write, kind = collection.document, collection.type
        if query.items is not None:
            write, kind = compile_projection(query.items, collection.members), "Raw"
        cost = await self._cost(query, work)
        found = (
            (place, encode(write(row)) if matches and (only is None or only(row)) else None)
            for place, row, matches in self._scan(query, Budget(), cost, start.after)
        )
        return await start.page(found, size, text, kind, work)

    async def count(self, text: str, work: Work, budget: Budget) -> int:
        """Return how many rows a query finds: the metric of a configuration.

        Raises:
            ArgumentInvalid: the query is invalid or too expensive.
            PreconditionFailed: the query is too long.
        """
        query = await parse_in(work, text)
        found = 0
        if query.aggregates:
            found = len(await self._aggregate(query, work, budget))
        else:
            for _, _, matches in self._scan(query, budget, await self._cost(query, work)):
                found += matches
                if work.over:
                    await work.rest()
        return found if query.top is None else min(found, query.top)

    async def find(self, condition: str) -> list[IdentityKey]:
        """Return the keys of the twins that a job's condition finds.

        Args:
            condition: `*`, a WHERE clause without the word, or `FROM devices.modules [WHERE …]`.

        Raises:
            ArgumentInvalid: the condition is invalid or too expensive.
            PreconditionFailed: it is too long.
        """
        work = await self._slices.begin()
        parsed = await parse_in(work, condition, condition=True)
        if parsed.source is Source.JOBS:
            raise ArgumentInvalid("BadRequest: a condition is on devices or devices.modules")
        found = []
        for _, row, matches in self._scan(parsed, Budget(), await self._cost(parsed, work)):
            if matches:
                found.append(row.identity.key)
            if work.over:
                await work.rest()
        return found

    def _scan(
        self, query: Query, budget: Budget, cost: int, after: Place = ()
    ) -> Iterator[tuple[Place, Any, bool]]:
        """Return the rows after a place, and whether the query finds them.

        Raises:
            ArgumentInvalid: the query is too expensive.
        """
        collection = self._collections[query.source]
        matches = compile_condition(query, collection.members)
        spend = budget.spend
        for place, row in collection.rows(after):
            spend(cost)
            yield place, row, matches(row)

    async def _cost(self, query: Query, work: Work) -> int:
        """Return the steps that a query takes for each row.

        Raises:
            ArgumentInvalid: they are too many for a slice.
        """
        own = sum(steps(expression) for expression in expressions(query))
        if own > limits.QUERY_ROW_STEPS:
            raise ArgumentInvalid(
                f"BadRequest: the query takes {own} steps for each row. {limits.QUERY_ROW_STEPS} "
                "are allowed. Use a shorter expression"
            )
        parts = (part for expression in expressions(query) for part in walk(expression))
        roots = {str(part.parts[0]).lower() for part in parts if isinstance(part, Path)}
        if work.over:
            await work.rest()
        return 1 + own + sum(cost() for name, cost in self._costs.items() if name in roots)

    async def _aggregate(
        self, query: Query, work: Work, budget: Budget | None = None
    ) -> list[tuple[Place, bytes]]:
        """Return the rows of an aggregation, of which each stands for several rows."""
        members = self._collections[query.source].members
        aggregation = Aggregation(query.items or (), query.group_by, members)
        cost = await self._cost(query, work)
        for place, row, matches in self._scan(query, budget or Budget(), cost):
            if matches:
                aggregation.add(place, row)
            if work.over:
                await work.rest()
        answer, size = [], 0
        for place, values in aggregation.rows():
            answer.append((place, encode(values)))
            size += len(answer[-1][1])
            if size > limits.QUERY_ANSWER_BYTES:
                raise ArgumentInvalid(
                    f"BadRequest: the answer has more than {limits.QUERY_ANSWER_BYTES} bytes. Use "
                    "paths with shorter values in GROUP BY"
                )
            if work.over:
                await work.rest()
        return answer


def _once(read: Callable[[TwinRow], Any]) -> Callable[[TwinRow], Any]:
    """Return a reader that keeps the value for the row that was read last."""
    last: list[Any] = [None, None]

    def reader(row: TwinRow) -> Any:
        if last[0] is not row:
            last[:] = row, read(row)
        return last[1]

    return reader
