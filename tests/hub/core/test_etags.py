import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.etags import IfMatch

# Both kinds that a hub makes: of an identity's digits, of a twin's eight bytes.
ETAGS = st.one_of(
    st.integers(1, 10**10).map(lambda number: str(number).encode()),
    st.integers(1, 2**63).map(lambda number: number.to_bytes(8, "big")),
).map(lambda etag: base64.b64encode(etag).decode())


@pytest.mark.parametrize(
    ("header", "etag"),
    [
        *((header, None) for header in (None, "", "  ", '""')),
        *((header, "*") for header in ("*", '"*"')),
        *((header, "MTIz") for header in ("MTIz", '"MTIz"')),
        *((' "AAAAAAAAAAE=" ', "AAAAAAAAAAE="), ('"MTIz', '"MTIz'), ('"', '"')),
    ],
)
def test_the_header_is_parsed_bare_or_quoted(header: str | None, etag: str | None) -> None:
    if_match = IfMatch.parse(header)
    assert if_match.etag == etag
    assert if_match.absent == (etag is None)


@given(ETAGS, ETAGS)
def test_only_the_etag_itself_matches(current: str, other: str) -> None:
    for header in (current, f'"{current}"'):
        if_match = IfMatch.parse(header)
        assert if_match.allows(current)
        assert if_match.allows(other) == (other == current)
        assert not if_match.allows(current.swapcase())
    for header in (None, "", '""', "*", '"*"'):  # no precondition, and the wildcard
        assert IfMatch.parse(header).allows(current)


@given(st.text(), ETAGS)
def test_any_header_can_be_parsed(header: str, current: str) -> None:
    if_match = IfMatch.parse(header)
    expected = header.strip() in ("", '""', "*", '"*"', current, f'"{current}"')
    assert if_match.allows(current) == expected
