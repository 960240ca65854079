"""How an answer in pages goes on: a token that says where the next page begins.

It names a place, not a number of rows, so that what comes and goes between two pages neither hides
a row nor shows one twice.
"""

from __future__ import annotations

import base64
import hashlib

from msgspec import Struct

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import dumps, loads

# What rows are in order by: unique among them, and the same as long as the row lives.
Place = tuple[str, ...]


class Continuation(Struct, frozen=True):
    """Where an answer goes on.

    Args:
        after: the place of the last row that was given; empty before the first.
        left: how many rows may follow; None is all.
    """

    after: Place = ()
    left: int | None = None

    def token(self, query: str) -> str:
        """Write it down for the client, who need not understand it."""
        content = {"query": _digest(query), "after": self.after, "left": self.left}
        return base64.urlsafe_b64encode(dumps(content)).decode()

    @classmethod
    def read(cls, token: str, query: str) -> Continuation:
        """Read a token that a client sent with a query.

        Raises:
            ArgumentInvalid: it is none, or belongs to another query.
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
