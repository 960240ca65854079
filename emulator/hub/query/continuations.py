"""Continuation tokens: each says where the next page of an answer begins.

A token names a place, not a number of rows. So a row that is created or deleted between two pages
neither hides another row nor shows it twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject, dumps, loads
from emulator.hub.core.places import Place
from emulator.hub.core.slices import Work


class Page(Struct, frozen=True):
    """A page of an answer.

    Args:
        rows: the rows as JSON text.
        type: their type, in the words of the header `x-ms-item-type`: Twin, DeviceJob, Raw.
        continuation: the token for the next page; None on the last page.
    """

    rows: list[bytes]
    type: str
    continuation: str | None

    @property
    def items(self) -> list[Any]:
        """The rows as JSON values."""
        return [loads(row) for row in self.rows]


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

    async def page(
        self,
        found: Iterable[tuple[Place, bytes | None]],
        size: int,
        query: str,
        kind: str,
        work: Work,
    ) -> Page:
        """Return the next rows.

        The page is full with `size` rows, or with `limits.QUERY_PAGE_BYTES`. It is of one moment
        only if the work has no rest: a row is sent as it is when the scan reaches it.

        Args:
            found: the rows after this place, in order; None stands for a row that is not sent.
            size: the largest number of rows.
            query: the query that the token belongs to.
            kind: the type of the rows.
            work: the work that this is a part of.
        """
        rows: list[bytes] = []
        wanted = size if self.left is None else min(size, self.left)
        room, last, more = limits.QUERY_PAGE_BYTES, self.after, False
        if wanted:  # TOP 0 has no rows
            for place, row in found:
                # One more row shows that another page follows.
                if more := row is not None and (len(rows) == wanted or room <= 0):
                    break
                if row is not None:
                    rows.append(row)
                    room, last = room - len(row), place
                if work.over:
                    await work.rest()
        left = None if self.left is None else self.left - len(rows)
        token = Continuation(last, left).token(query) if more and left != 0 else None
        return Page(rows, kind, token)

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


def encode(row: JsonObject) -> bytes:
    """Return a row as JSON text.

    Raises:
        ArgumentInvalid: it is larger than a page can be.
    """
    parts, size = [], 0
    for name, value in row.items():
        part = b"%s:%s" % (dumps(name), dumps(value))
        parts.append(part)
        size += len(part)
        if size > limits.QUERY_PAGE_BYTES:
            raise ArgumentInvalid(
                f"BadRequest: a row of the answer has more than {limits.QUERY_PAGE_BYTES} bytes. "
                "Select fewer members"
            )
    return b"{%s}" % b",".join(parts)


def _digest(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:16]
