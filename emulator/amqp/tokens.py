"""The tokens that a client has sent on its connection, by SASL or to `$cbs`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

from emulator.hub.access import entra
from emulator.hub.access.sas import SasToken
from emulator.hub.access.token_time import TokenTime
from emulator.hub.core.errors import IotHubMaxCbsTokenExceeded, IotHubUnauthorizedAccess

# Ours. A pool of C# devices has a token for each device on one connection, at most 1,000
# (C# SDK: AmqpConnectionPoolSettings). A client that has shown no right to anything needs few.
MANY, FEW = 1_024, 16

EXPIRED = "The specified SAS token is expired"  # seen on a real hub

# The longest text of a token; ours.
_MAX_BYTES = 4 * 1024


class Token(NamedTuple):
    """A token.

    Args:
        text: as in an `Authorization` header.
        expires: the hub time at which it expires, in seconds since the epoch.
        audience: what it is for, as it was written; a newer token for it replaces this one.
        policy: the policy whose key signed it; None if it names none.
        entity: the path of its audience, if that is one of Event Hubs.
        resource: the path of its audience, if that is one of the hub.
    """

    text: str
    expires: float
    audience: str
    policy: str | None = None
    entity: Sequence[str] | None = None
    resource: Sequence[str] | None = None

    @classmethod
    def parse(cls, text: str, time: TokenTime) -> Token:
        """Parse a token that has arrived.

        Args:
            text: the token.
            time: the time by which it is judged.

        Raises:
            IotHubUnauthorizedAccess: it is malformed, or has expired.
        """
        if len(text) > _MAX_BYTES:
            raise IotHubUnauthorizedAccess from ValueError("a token of more than 4 KB")
        if entra.bearer_token(text) is not None:
            # It names no resource. When it expires is not looked at, as over HTTPS.
            return cls(text, math.inf, "Bearer", None, (), ())
        fields = SasToken.parse(text)
        if time.is_over(fields.expiry):
            raise IotHubUnauthorizedAccess(EXPIRED)
        paths = (fields.path, None) if fields.is_for_event_hubs else (None, fields.path)
        return cls(text, time.end(fields.expiry), fields.audience, fields.policy, *paths)


_Key = tuple[bool, tuple[str, ...]]


class Tokens:
    """The newest token for each audience."""

    def __init__(self) -> None:
        # Some clients encode the ids in an audience twice, and letter case can differ. So several
        # audiences can be for one resource, and the gate decides which one is.
        self._tokens: dict[_Key, dict[str, Token]] = {}
        self._count = 0

    def put(self, token: Token, limit: int) -> None:
        """Keep a token in place of an older one for the same audience.

        Args:
            token: the token.
            limit: how many tokens are kept.

        Raises:
            IotHubMaxCbsTokenExceeded: there are too many.
        """
        for for_event_hubs, path in ((False, token.resource), (True, token.entity)):
            if path is not None:
                self._keep((for_event_hubs, _spelling(path)), token, limit)

    def _keep(self, key: _Key, token: Token, limit: int) -> None:
        known = self._tokens.get(key, {})
        if known.pop(token.audience, None) is None:
            if self._count >= limit:
                raise IotHubMaxCbsTokenExceeded
            self._count += 1
        self._tokens[key] = {token.audience: token, **known}

    @property
    def audiences(self) -> list[str]:
        """What the tokens are for, as they have it; of many, the first three."""
        found = (audience for known in self._tokens.values() for audience in known)
        return [*islice(found, 3)]

    def find(self, resource: Sequence[str], *, for_event_hubs: bool = False) -> Iterator[Token]:
        """Return the tokens that can be for a resource or a parent of it.

        Those with the longest audience are the first, and of them the newest.
        """
        for end in range(len(resource), -1, -1):
            yield from self._tokens.get((for_event_hubs, _spelling(resource[:end])), {}).values()


def _spelling(path: Sequence[str]) -> tuple[str, ...]:
    return tuple(unquote(segment).lower() for segment in path)
