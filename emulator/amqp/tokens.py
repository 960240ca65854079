"""The SAS tokens that a client has sent on its connection, by SASL or to `$cbs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from emulator.hub.access.sas import SasToken
from emulator.hub.core.errors import IotHubMaxCbsTokenExceeded, IotHubUnauthorizedAccess

# Ours. A pool of C# devices has a token for each device on one connection, at most 1,000
# (C# SDK: AmqpConnectionPoolSettings). A client that has shown no right to anything needs few.
MANY, FEW = 1_024, 16

# The longest text of a token; ours.
_MAX_BYTES = 4 * 1024


class Token(NamedTuple):
    """A token as text, and parsed."""

    text: str
    fields: SasToken


_Key = tuple[bool, tuple[str, ...]]


class Tokens:
    """The newest token for each audience."""

    def __init__(self) -> None:
        self._tokens: dict[_Key, Token] = {}

    def put(self, text: str, limit: int) -> Token:
        """Keep a token in place of an older one for the same audience; return it.

        Args:
            text: the token.
            limit: how many tokens are kept.

        Raises:
            IotHubUnauthorizedAccess: it is malformed.
            IotHubMaxCbsTokenExceeded: there are too many.
        """
        if len(text) > _MAX_BYTES:
            raise IotHubUnauthorizedAccess from ValueError("a SAS token of more than 4 KB")
        token = Token(text, SasToken.parse(text))
        key = _key(token.fields.is_for_event_hubs, token.fields.path)
        if len(self._tokens) >= limit and key not in self._tokens:
            raise IotHubMaxCbsTokenExceeded
        self._tokens[key] = token
        return token

    def find(self, resource: Sequence[str], *, for_event_hubs: bool = False) -> Iterator[Token]:
        """Return the tokens whose audience can be a resource, or a parent; the longest first."""
        for end in range(len(resource), -1, -1):
            token = self._tokens.get(_key(for_event_hubs, resource[:end]))
            if token is not None:
                yield token


def _key(for_event_hubs: bool, path: Sequence[str]) -> _Key:
    # Some clients encode the ids in an audience twice. The gate decides whether a token is valid.
    change = str.lower if for_event_hubs else unquote
    return for_event_hubs, tuple(map(change, path))
