"""The query language (IoT Hub docs: query language), for those who ask: text in, functions out.

`query.lark` has the grammar, `parser.py` makes a tree of a text, `expressions.py` a
function of a tree.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from msgspec import Struct

from emulator.hub.query.expressions import Members, R, compile_expression
from emulator.hub.query.tree import Expression, Query, Source, paths

__all__ = ["Condition", "Members", "Query", "Source", "parse", "parse_condition"]

# Services repeat their queries page by page, and jobs and configurations theirs for each device.
_PARSED = 256


class Condition(Struct, frozen=True):
    """Which rows are meant: all of `source`, or those for which `where` is true."""

    source: Source
    where: Expression | None

    @property
    def paths(self) -> frozenset[tuple[str, ...]]:
        """Every path that it reads, root members as they were spelled."""
        found = () if self.where is None else paths(self.where)
        return frozenset(tuple(str(part) for part in path.parts) for path in found)

    def compile(self, members: Members[R]) -> Callable[[R], bool]:
        """Make the function that says whether a row is meant: `where` is true of it, no less."""
        if self.where is None:
            return lambda row: True
        value = compile_expression(self.where, members)
        return lambda row: value(row) is True


@functools.lru_cache(_PARSED)
def parse(text: str) -> Query:
    """Parse a query.

    Raises:
        ArgumentInvalid: it is none, or longer than `limits.QUERY_TEXT_LENGTH`; the text says where.
    """
    # With the first query, not with the hub: lark and its tables take almost a tenth of a second,
    # and most runs of the emulator see no query.
    from emulator.hub.query import parser

    return parser.parse_query(text)


@functools.lru_cache(_PARSED)
def parse_condition(text: str) -> Condition:
    """Parse the condition of a job, or the target condition of a configuration.

    Args:
        text: a WHERE clause without the word, `*` for every device, or
            `FROM devices[.modules] [WHERE …]`.

    Raises:
        ArgumentInvalid: it is none of these; the text says where.
    """
    from emulator.hub.query import parser

    query = parser.parse_condition(text)
    return Condition(query.source, query.where)
