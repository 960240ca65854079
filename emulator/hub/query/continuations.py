"""Continuation tokens: each says where the next page of an answer begins.

A token names a place, not a number of rows. So a row that is created or deleted between two pages
neither hides another row nor shows it twice.
"""

from __future__ import annotations

import base64
import hashlib

from msgspec import Struct

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import dumps, loads

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

    @classmethod
    def read(cls, token: str, query: str) -> Continuation:
        """Read a token that a client sent with a query.

        Raises:
            ArgumentInvalid: it is malformed, or belongs to another query.
        """
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
