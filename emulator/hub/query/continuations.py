"""Continuation tokens: each says where the next page of an answer begins.

A token names a place, not a number of rows. So a row that is created or deleted between two pages
neither hides another row nor shows it twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from heapq import nsmallest
from operator import itemgetter
from typing import TypeVar

from msgspec import Struct

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import dumps, loads

_T = TypeVar("_T")

# The order of rows: unique for each row, and constant while the row exists.
Place = tuple[str, ...]


class Continuation(Struct, frozen=True):
    """Where the next page begins.

    Args:
        after: the place of the last row that was sent; empty before the first.
        left: how many rows can follow; None is all.
    """

    after: Place = ()
    left: int | None = None

    def token(self, query: str) -> str:
        """Return it as a token, which is opaque to the client."""
        content = {"query": _digest(query), "after": self.after, "left": self.left}
        return base64.urlsafe_b64encode(dumps(content)).decode()

    def page(
        self, placed: Iterable[tuple[Place, _T]], size: int, query: str
    ) -> tuple[list[_T], str | None]:
        """Return at most `size` rows in the order of their places, and the token for the next page.

        Args:
            placed: all rows with their places.
            size: the largest number of rows.
            query: the query that the token belongs to.

        Returns:
            The rows; and the token, which is None after the last row.
        """
        wanted = size if self.left is None else min(size, self.left)
        # One more row shows that another page follows.
        rest = (each for each in placed if each[0] > self.after)
        found = nsmallest(wanted + 1, rest, key=itemgetter(0))
        page = found[:wanted]
        left = None if self.left is None else self.left - wanted
        last = len(found) <= wanted or left == 0
        following = None if last else Continuation(page[-1][0], left).token(query)
        return [row for _, row in page], following

    @classmethod
    def read(cls, token: str | None, query: str, left: int | None = None) -> Continuation:
        """Read a token that a client sent with a query.

        Args:
            token: None is the first page.
            query: the query.
            left: how many rows the whole answer can have; None is all.

        Raises:
            ArgumentInvalid: it is malformed, or belongs to another query.
        """
        if token is None:
            return cls(left=left)
        try:
            content = loads(base64.urlsafe_b64decode(token.encode()))
        except ValueError:
            content = None
        match content:
            case {"query": digest, "after": [*after], "left": left} if digest == _digest(query):
                counts = left is None or (type(left) is int and left >= 0)
                if counts and all(isinstance(part, str) for part in after):
                    return cls(tuple(after), left)
        raise ArgumentInvalid("BadRequest: the continuation token is not one of this query")


def _digest(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:16]
