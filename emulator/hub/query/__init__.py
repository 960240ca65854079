"""The query language (IoT Hub docs: query language): text in, functions out.

`query.lark` is the grammar. `parser.py` parses a text into a tree, `expressions.py` compiles a tree
into a function.
"""

from __future__ import annotations

import functools

from emulator.hub.query.expressions import Members
from emulator.hub.query.tree import Query, Source

__all__ = ["Members", "Query", "Source", "parse", "parse_condition"]

# Services repeat a query for each page; jobs and configurations repeat a condition.
_PARSED = 256


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
def parse_condition(text: str) -> Query:
    """Parse the condition of a job, or the target condition of a configuration, into the query that
    it stands for.

    Args:
        text: a WHERE clause without the word, `*` for every device, or
            `FROM devices[.modules] [WHERE …]`.

    Raises:
        ArgumentInvalid: the condition is invalid; the text names the place.
    """
    from emulator.hub.query import parser

    return parser.parse_condition(text)
