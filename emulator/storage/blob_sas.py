"""SAS tokens for one blob: a service SAS, signed with the key of an account.

(Azure Storage docs: create a service SAS. The string to sign is that of the version in the token.)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from msgspec import Struct

# The first version whose string to sign is that of today. A client that names no version has that
# of its token (Azure Storage docs: versioning).
VERSION = "2020-12-06"
READ, WRITE, CREATE, DELETE = "r", "w", "c", "d"

# The members of the string to sign, in order; `resource` stands for the path of the blob. Members
# were added in two versions (Azure Storage docs: create a service SAS).
_RESPONSE_HEADERS = ("rscc", "rscd", "rsce", "rscl", "rsct")
_BEFORE = ("sp", "st", "se", "resource", "si", "sip", "spr", "sv")
_SIGNED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (VERSION, (*_BEFORE, "sr", "snapshot", "ses", *_RESPONSE_HEADERS)),
    ("2018-11-09", (*_BEFORE, "sr", "snapshot", *_RESPONSE_HEADERS)),
    ("2015-04-05", (*_BEFORE, *_RESPONSE_HEADERS)),
)
# The time of a snapshot is signed for snapshots alone, sr=bs.
_KNOWN = frozenset((*_BEFORE, *_RESPONSE_HEADERS, "sr", "ses", "sig")) - {"resource"}
# What the emulator can't check, so a token with it grants nothing: a stored access policy, a range
# of addresses, an encryption scope.
_UNSUPPORTED = ("si", "sip", "ses")

_VERSION = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# ISO 8601 in UTC, in each form that the service takes.
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,7})?)?Z)?", re.ASCII)
# The service's form of a time in its errors.
_HTTP_TIME = "%a, %d %b %Y %H:%M:%S GMT"


class SasError(Exception):
    """A token does not authenticate a request. The text is a detail that can be shown."""


class Blob(Struct, frozen=True):
    """The blob that a token is for.

    Args:
        account: the name of its account.
        container: the name of its container.
        name: its own name, decoded.
    """

    account: str
    container: str
    name: str

    @property
    def resource(self) -> str:
        """The canonicalized resource."""
        return f"/blob/{self.account}/{self.container}/{self.name}"


def sign(blob: Blob, key: bytes, permissions: str, expires: datetime) -> str:
    """Write a token.

    Args:
        blob: the blob.
        key: the decoded key of the account.
        permissions: letters in the service's order: `rw`.
        expires: when it expires.

    Returns:
        the token as a query, in the order of a real hub: `?sv=…&sr=b&sig=…&se=…&sp=rw`.
    """
    fields = {"sv": VERSION, "sr": "b", "se": _written(expires), "sp": permissions}
    return _query({"sv": VERSION, "sr": "b", "sig": _signature(blob, key, fields), **fields})


def sign_container(account: str, key: bytes, permissions: str, expires: datetime) -> str:
    """Write an account SAS for operations on containers (Azure Storage docs: account SAS)."""
    fields = {"sp": permissions, "ss": "b", "srt": "c", "st": "", "se": _written(expires)}
    fields |= {"sip": "", "spr": "", "sv": VERSION, "ses": ""}
    text = "".join(f"{each}\n" for each in (account, *fields.values()))
    signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode()
    return _query({**{name: value for name, value in fields.items() if value}, "sig": signature})


def verify(query: str, blob: Blob, key: bytes, now: datetime) -> Mapping[str, str]:
    """Verify the token in the query of a request.

    Args:
        query: the query, encoded; it can have other parameters too.
        blob: the blob that the path names.
        key: the decoded key of the account.
        now: the time.

    Returns:
        the fields of the token: `sp` has the permissions, and `sv` the version.

    Raises:
        SasError: the token is invalid.
    """
    fields = _fields(query)
    if any(not fields.get(name) for name in ("sv", "sr", "sig", "se", "sp")):
        raise SasError("The token is not complete: sv, sr, sig, se and sp are mandatory.")
    if not is_version(fields["sv"]) or fields["sv"] < _SIGNED[-1][0]:
        raise SasError(f"sv is not valid: use a version from {_SIGNED[-1][0]} on.")
    for name in _UNSUPPORTED:
        if name in fields:
            raise SasError(f"The emulator does not support {name}.")
    if fields["sr"] != "b":
        raise SasError("sr is not valid: the emulator has tokens for one blob, sr=b.")
    if not hmac.compare_digest(_signature(blob, key, fields).encode(), fields["sig"].encode()):
        # A real service shows the string to sign, with the encoded fields of the client.
        raise SasError(
            f"Signature did not match. String to sign used was {_string_to_sign(blob, fields)}"
        )
    start = _time(fields["st"], "st") if "st" in fields else None
    expires = _time(fields["se"], "se")
    if now >= expires or (start is not None and now < start):
        first = "" if start is None else start.strftime(_HTTP_TIME)
        raise SasError(
            f"Signature not valid in the specified time frame: Start [{first}] - Expiry "
            f"[{expires.strftime(_HTTP_TIME)}] - Current [{now.strftime(_HTTP_TIME)}]"
        )
    return fields


def is_version(text: str) -> bool:
    """Return whether a text has the form of a version of the service: `2020-12-06`."""
    return _VERSION.fullmatch(text) is not None


def parameters(query: str) -> list[tuple[str, str]]:
    """Parse a query as the service does: a plus sign is a plus sign."""
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, errors="strict")
    return [(name.lower(), value) for name, value in pairs]


def _written(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _query(fields: Mapping[str, str]) -> str:
    return "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items())


def _fields(query: str) -> dict[str, str]:
    try:
        pairs = [(name, value) for name, value in parameters(query) if name in _KNOWN]
    except ValueError:
        raise SasError("The query is not valid UTF-8.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise SasError(f"The token has {_first_repeated(name for name, _ in pairs)} twice.")
    return fields


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _signature(blob: Blob, key: bytes, fields: Mapping[str, str]) -> str:
    text = _string_to_sign(blob, fields).encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def _string_to_sign(blob: Blob, fields: Mapping[str, str]) -> str:
    names = next(names for version, names in _SIGNED if fields["sv"] >= version)
    values = {**fields, "resource": blob.resource}
    return "\n".join(values.get(name, "") for name in names)


def _time(text: str, name: str) -> datetime:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        # 7 digits of a second in .NET, at most 6 here.
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).replace(tzinfo=UTC)
    except ValueError:
        raise SasError(f"{name} is not a valid time: use 2026-01-31T12:00:00Z.") from None


def decoded_key(text: str) -> bytes:
    """Decode the key of an account.

    Raises:
        ValueError: it is not base64, or empty.
    """
    key = base64.b64decode(text, validate=True)
    if not key:
        raise ValueError("empty")
    return key


def decoded_path(path: str) -> str:
    """Decode the path of a blob's URL.

    Raises:
        ValueError: it is not UTF-8.
    """
    return unquote_to_bytes(path).decode()
