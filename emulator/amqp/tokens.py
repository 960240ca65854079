"""The tokens that a client has sent on its connection, by SASL or to `$cbs`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from emulator.hub.access import entra
from emulator.hub.access.sas import SasToken
from emulator.hub.core.errors import IotHubMaxCbsTokenExceeded, IotHubUnauthorizedAccess

# Ours. A pool of C# devices has a token for each device on one connection, at most 1,000
# (C# SDK: AmqpConnectionPoolSettings). A client that has shown no right to anything needs few.
MANY, FEW = 1_024, 16

# The longest text of a token; ours.
_MAX_BYTES = 4 * 1024


class Token(NamedTuple):
    """A token.

    Args:
        text: as in an `Authorization` header.
        expires: the expiry time, in seconds since the epoch.
        policy: the policy whose key signed it; None if it names none.
        entity: of Event Hubs, what it is for; None if it is for the hub or a device.
    """

    text: str
    expires: float
    policy: str | None = None
    entity: Sequence[str] | None = None


_Key = tuple[bool, tuple[str, ...]]


class Tokens:
    """The newest token for each audience."""

    def __init__(self) -> None:
        # Some clients encode the ids in an audience twice, and letter case can differ. So several
        # audiences can be for one resource, and the gate decides which one is.
        self._tokens: dict[_Key, dict[str, Token]] = {}
        self._count = 0

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
            raise IotHubUnauthorizedAccess from ValueError("a token of more than 4 KB")
        if entra.bearer_token(text) is not None:
            # It names no resource. When it expires is not looked at, as over HTTPS.
            token = Token(text, math.inf)
            for for_event_hubs in (False, True):
                self._keep((for_event_hubs, ()), "Bearer", token, limit)
            return token
        fields = SasToken.parse(text)
        entity = fields.path if fields.is_for_event_hubs else None
        token = Token(text, fields.expiry, fields.policy, entity)
        key = fields.is_for_event_hubs, _spelling(fields.path)
        self._keep(key, fields.audience, token, limit)
        return token

    def _keep(self, key: _Key, audience: str, token: Token, limit: int) -> None:
        known = self._tokens.get(key, {})
        if known.pop(audience, None) is None:
            if self._count >= limit:
                raise IotHubMaxCbsTokenExceeded
            self._count += 1
        self._tokens[key] = {audience: token, **known}

    def find(self, resource: Sequence[str], *, for_event_hubs: bool = False) -> Iterator[Token]:
        """Return the tokens that can be for a resource or a parent of it.

        Those with the longest audience are the first, and of them the newest.
        """
        for end in range(len(resource), -1, -1):
            yield from self._tokens.get((for_event_hubs, _spelling(resource[:end])), {}).values()


def _spelling(path: Sequence[str]) -> tuple[str, ...]:
    return tuple(unquote(segment).lower() for segment in path)
