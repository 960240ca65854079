"""The SAS tokens that a client has sent on its connection, by SASL or to `$cbs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from emulator.hub.access.sas import SasToken
from emulator.hub.core.errors import IotHubMaxCbsTokenExceeded

# Ours. A pool of C# devices has a token for each device on one connection, at most 1,000
# (C# SDK: AmqpConnectionPoolSettings). And the longest text of a token.
_MAX_TOKENS = 1_024
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

    def put(self, text: str) -> Token:
        """Keep a token in place of an older one for the same audience; return it.

        Raises:
            IotHubUnauthorizedAccess: it is malformed.
            IotHubMaxCbsTokenExceeded: there are too many.
        """
        token = Token(text, SasToken.parse(text[:_MAX_BYTES]))
        key = _key(token.fields.is_for_event_hubs, token.fields.path)
        if len(self._tokens) >= _MAX_TOKENS and key not in self._tokens:
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
