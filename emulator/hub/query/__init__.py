"""The query language (IoT Hub docs: query language): text in, functions out.

`query.lark` is the grammar. `parser.py` parses a text into a tree, `expressions.py` compiles a tree
into a function.
"""

from __future__ import annotations

import functools

from emulator.hub.core.errors import HubError
from emulator.hub.core.slices import Work, at_once
from emulator.hub.query.expressions import Members
from emulator.hub.query.tree import Query, Source

__all__ = ["Members", "Query", "Source", "parse", "parse_condition", "parse_in"]

# Services repeat a query for each page; jobs and configurations repeat a condition. A long text has
# a tree of megabytes, so few of these are kept.
_PARSED = 256
_PARSED_LENGTH = 512
_LONG_PARSED = 16  # enough for the texts of one configuration
_long: dict[tuple[str, bool], Query | HubError] = {}


def parse(text: str) -> Query:
    """Parse a query.

    Raises:
        ArgumentInvalid: the query is invalid; the text names the place.
        PreconditionFailed: it is longer than `limits.QUERY_TEXT_LENGTH`.
    """
    return _parse(text, condition=False)


def parse_condition(text: str) -> Query:
    """Parse the condition of a job, or the target condition of a configuration, into the query that
    it stands for.

    Args:
        text: a WHERE clause without the word, `*` for every device, or
            `FROM devices[.modules] [WHERE …]`.

    Raises:
        ArgumentInvalid: the condition is invalid; the text names the place.
        PreconditionFailed: it is longer than `limits.QUERY_TEXT_LENGTH`.
    """
    return _parse(text, condition=True)


async def parse_in(work: Work, text: str, *, condition: bool = False) -> Query:
    """Parse a query, or a condition, as a part of long work: a long text takes 0.1 s.

    Raises:
        ArgumentInvalid, PreconditionFailed: see `parse`.
    """
    if len(text) > _PARSED_LENGTH and (text, condition) not in _long:
        from emulator.hub.query import parser

        try:
            _keep(text, condition, await work.finish(parser.steps(text, condition=condition)))
        except HubError as error:
            _keep(text, condition, error)
    return _parse(text, condition=condition)


def _parse(text: str, *, condition: bool) -> Query:
    if len(text) <= _PARSED_LENGTH:
        return _parse_short(text, condition=condition)
    found = _long.get((text, condition))
    if isinstance(found, HubError):
        raise type(found)(found.text)
    if found is None:
        from emulator.hub.query import parser

        found = at_once(parser.steps(text, condition=condition))
    return found


def _keep(text: str, condition: bool, found: Query | HubError) -> None:
    _long[text, condition] = found
    if len(_long) > _LONG_PARSED:
        del _long[next(iter(_long))]


@functools.lru_cache(_PARSED)
def _parse_short(text: str, *, condition: bool) -> Query:
    # Imported with the first query: lark and its tables take almost 0.1 s, and most runs of the
    # emulator have no query.
    from emulator.hub.query import parser

    return at_once(parser.steps(text, condition=condition))
