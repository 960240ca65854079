"""Continuation tokens: for clients they are text, and each belongs to one query."""

import base64
import json
import string
from typing import Any

import pytest

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.query.continuations import Continuation

QUERY = "SELECT TOP 2 * FROM devices"
START = Continuation(("639054099681200000", "-._?$,;é"), 1)


@pytest.mark.parametrize("continuation", [START, Continuation(("a",)), Continuation((), 0)])
def test_a_token_fits_in_a_header_and_in_a_url(continuation: Continuation) -> None:
    token = continuation.token(QUERY)
    assert set(token) <= {*string.ascii_letters, *string.digits, *"-_="}
    assert len(token) < 200
    assert Continuation.read(token, QUERY) == continuation


NOT_TOKENS = ["", "x", "!", "é", "bnVsbA==", "W10=", "e30=", "MQ", "%", " ", "A" * 9999, "\x00"]


@pytest.mark.parametrize("token", [*NOT_TOKENS, "Ww=="])
def test_a_text_that_is_not_a_token_is_refused(token: str) -> None:
    with pytest.raises(ArgumentInvalid, match="continuation"):
        Continuation.read(token, QUERY)


def test_a_token_of_another_query_is_refused() -> None:
    with pytest.raises(ArgumentInvalid, match="continuation"):
        Continuation.read(START.token(QUERY), QUERY.replace("2", "2 "))


@pytest.mark.parametrize(
    "members",
    [
        *({"query": query} for query in ("0" * 16, None)),
        *({"after": after} for after in (None, "a", [1, "a"], {"a": 1})),
        *({"left": left} for left in (-1, 1.5, True, "1")),
    ],
)
def test_a_token_with_a_wrong_member_is_refused(members: dict[str, Any]) -> None:
    def forge(**members: Any) -> str:
        content = json.loads(base64.urlsafe_b64decode(START.token(QUERY)))
        return base64.urlsafe_b64encode(json.dumps({**content, **members}).encode()).decode()

    assert Continuation.read(forge(), QUERY) == START
    with pytest.raises(ArgumentInvalid, match="continuation"):
        Continuation.read(forge(**members), QUERY)
