"""The query language (IoT Hub docs: query language): text in, functions out.

`query.lark` is the grammar. `parser.py` parses a text into a tree, `expressions.py` compiles a tree
into a function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from msgspec import Struct

from emulator.hub.query.expressions import Members, R, compile_expression
from emulator.hub.query.tree import Expression, Query, Source, paths

__all__ = ["Condition", "Members", "Query", "Source", "parse", "parse_condition"]

# Services repeat a query for each page; jobs and configurations repeat a condition.
_PARSED = 256


class Condition(Struct, frozen=True):
    """A condition on rows: all rows of `source`, or the rows for which `where` is true."""

    source: Source
    where: Expression | None

    @property
    def paths(self) -> frozenset[tuple[str, ...]]:
        """Every path that the condition reads, with root members as they were spelled."""
        found = () if self.where is None else paths(self.where)
        return frozenset(tuple(str(part) for part in path.parts) for path in found)

    def compile(self, members: Members[R]) -> Callable[[R], bool]:
        """Return the function that decides whether a row matches; undefined does not match."""
        if self.where is None:
            return lambda row: True
        value = compile_expression(self.where, members)
        return lambda row: value(row) is True


@functools.lru_cache(_PARSED)
def parse(text: str) -> Query:
    """Parse a query.

    Raises:
        ArgumentInvalid: the query is invalid, or longer than `limits.QUERY_TEXT_LENGTH`; the text
            names the place.
    """
    # Imported with the first query: lark and its tables take almost 0.1 s, and most runs of the
    # emulator have no query.
    from emulator.hub.query import parser

    return parser.parse_query(text)


@functools.lru_cache(_PARSED)
def parse_condition(text: str) -> Condition:
    """Parse the condition of a job, or the target condition of a configuration.

    Args:
        text: a WHERE clause without the word, `*` for every device, or
            `FROM devices[.modules] [WHERE …]`.

    Raises:
        ArgumentInvalid: the condition is invalid; the text names the place.
    """
    from emulator.hub.query import parser

    query = parser.parse_condition(text)
    return Condition(query.source, query.where)
