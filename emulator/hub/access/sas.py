"""SAS tokens: parsed, and checked against a key, a resource and a time.

Pure functions: the gate looks up the identity or the policy that a token names, and passes its keys
and the time (IoT Hub docs: control access with shared access signatures).
"""

from __future__ import annotations

import base64
import functools
import hmac
import re
from collections.abc import Collection, Sequence
from urllib.parse import unquote

from msgspec import Struct

from emulator.hub.access.keys import SymmetricKeys, decode_key
from emulator.hub.core.errors import IotHubUnauthorizedAccess

_SCHEME = "SharedAccessSignature "

# How many names of hosts and audiences of good tokens are remembered, with what they say.
_REMEMBERED = 1024

# 9999-12-31T23:59:59Z. The hub's own parsers add `se` to a .NET DateTime, which ends there (EdgeHub
# source: SharedAccessSignature). Milliseconds, given by mistake, are beyond it.
_EXPIRY_MAX = 253_402_300_799
_EXPIRY = re.compile(r"[0-9]{1,12}")

# `[::1]:8443`, `[::1]`, `localhost:8443`, `localhost`. A bare `::1` is none of them.
_HOST = re.compile(r"\[(?P<address>[^\[\]]+)\](?::[0-9]+)?|(?P<name>[^:]+)(?::[0-9]+)?")


class SasToken(Struct, frozen=True):
    """A SAS token: `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, its fields in any order.

    Args:
        audience: `sr` exactly as it stands in the token, URL-encoded: the signature covers it so.
        signature: `sig`, decoded.
        expiry: `se`, in seconds since the epoch.
        policy: `skn`, the policy whose key signed; None for an identity's own key.
        expiry_text: `se` as it stands in the token: the signature covers it so.
    """

    audience: str
    signature: bytes
    expiry: int
    policy: str | None
    expiry_text: str

    def __repr__(self) -> str:
        # With its signature it would make a good token.
        return f"{type(self).__name__}(audience={self.audience!r}, policy={self.policy!r})"

    @classmethod
    def parse(cls, text: str) -> SasToken:
        """Read a token from an `Authorization` header or a password.

        The scheme is case-sensitive, as in EdgeHub. Unknown fields are ignored.

        Raises:
            IotHubUnauthorizedAccess: it is malformed; the cause says how.
        """
        try:
            fields = _fields(text)
            expiry_text = fields["se"]
            return cls(
                audience=fields["sr"],
                signature=_signature(fields["sig"]),
                expiry=_expiry(expiry_text),
                # The C SDK writes an empty skn into a device's token.
                policy=unquote(fields.get("skn", "")) or None,
                expiry_text=expiry_text,
            )
        except ValueError as error:
            raise IotHubUnauthorizedAccess from error

    def is_signed_by(self, keys: SymmetricKeys) -> bool:
        """Whether one of the two keys made the signature."""
        signed = f"{self.audience}\n{self.expiry_text}".encode()
        # Both are always compared: the time it takes doesn't tell which one, if any, is right.
        matches = [
            hmac.compare_digest(self.signature, hmac.digest(decode_key(key), signed, "sha256"))
            for key in (keys.primary, keys.secondary)
        ]
        return any(matches)

    def covers(self, resource: Sequence[str], hosts: Collection[str]) -> bool:
        """Whether the audience is the resource, or something above it on one of the hosts.

        `hub/devices/a` covers itself and `hub/devices/a/modules/m`, not `hub/devices/ab`; `hub`
        covers everything. Ids and the words between them are compared case-sensitively.

        A policy's token has one reading only, the documented one: URL-encoded once. So it never
        covers two devices, whatever their ids. A token without a policy is verified with the
        identity's own key, and that proves whose it is; then `sr` may hold the ids encoded twice
        (C# SDK, Edge) or not at all (C SDK), too.

        Args:
            resource: the wanted path, decoded, as segments: `("devices", "a")`; empty for the
                service.
            hosts: the names that the hub goes by. Ports and letter case don't matter.
        """
        host, *path = _segments(self.audience)
        if path and not path[-1]:
            path.pop()
        known = host in hosts or _bare_host(host) in map(_bare_host, hosts)
        if not known or len(path) > len(resource):
            return False
        if not path:
            return True
        pairs = zip(path, resource, strict=False)
        if self.policy is None:
            return all(_may_spell(segment, wanted) for segment, wanted in pairs)
        return all(segment == wanted for segment, wanted in pairs)


def check_token(
    token: SasToken,
    keys: SymmetricKeys,
    *,
    resource: Sequence[str],
    hosts: Collection[str],
    now: float,
) -> None:
    """Let a token pass that is signed, in time, and for this resource; there is no clock skew.

    Args:
        token: the token.
        keys: those of its policy, or of the identity when it names no policy.
        resource: see `SasToken.covers`.
        hosts: see `SasToken.covers`.
        now: seconds since the epoch.

    Raises:
        IotHubUnauthorizedAccess: it must not pass. The text is always the service's own; the cause
            says why, for the log.
    """
    check_signature(token, keys)
    check_reach(token, resource=resource, hosts=hosts, now=now)


def check_signature(token: SasToken, keys: SymmetricKeys) -> None:
    """Let a token pass that one of the keys has signed; the rest is as `check_token` has it."""
    if not token.is_signed_by(keys):
        raise IotHubUnauthorizedAccess from ValueError(
            "the SAS token is signed with neither the primary nor the secondary key"
        )


def check_reach(
    token: SasToken, *, resource: Sequence[str], hosts: Collection[str], now: float
) -> None:
    """Let a token pass that is in time, and for this resource; as `check_token` has it."""
    if token.expiry <= now:
        reason = f"the SAS token expired: se is {token.expiry}, the time is {now:.0f}"
    elif not token.covers(resource, hosts):
        wanted = "/".join(resource) or "the hub"
        reason = f"the SAS token is for {token.audience!r}, not for {wanted!r} on {sorted(hosts)}"
    else:
        return
    raise IotHubUnauthorizedAccess from ValueError(reason)


def _fields(text: str) -> dict[str, str]:
    """Split a token into its fields, still URL-encoded; ValueError if it is malformed."""
    if not text.isascii() or not text.startswith(_SCHEME):
        raise ValueError("not a SAS token")
    # Only the first '=' separates: an id in an unencoded sr may hold one.
    pairs = [part.partition("=") for part in text[len(_SCHEME) :].split("&")]
    fields = {name: value for name, _, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("a SAS token with a field twice")
    for name in ("sr", "sig", "se"):
        if not fields.get(name):
            raise ValueError(f"a SAS token without {name}")
    return fields


def _signature(value: str) -> bytes:
    # Not unquote_plus: '+' is a digit of base64, and must stay one where a client didn't encode it.
    text = unquote(value)
    signature = decode_key(text)
    # The last digit has bits to spare: without this, other texts would pass for the same signature.
    if base64.b64encode(signature).decode() != text:
        raise ValueError("a SAS token whose sig is not base64 as it should be")
    return signature


def _expiry(text: str) -> int:
    if not _EXPIRY.fullmatch(text) or int(text) > _EXPIRY_MAX:
        raise ValueError("a SAS token whose se is not seconds since the epoch, in decimal digits")
    return int(text)


@functools.lru_cache(_REMEMBERED)
def _segments(audience: str) -> Sequence[str]:
    """Split `sr` at its slashes and decode it: the host comes first."""
    if "/" in audience:
        # Not encoded, or its slashes weren't: an encoded slash then belongs to a segment.
        return [unquote(segment) for segment in audience.split("/")]
    decoded = unquote(audience)
    # Still no slash: a host alone, or encoded twice as a whole. No host has a '%' of its own.
    return (decoded if "/" in decoded else unquote(decoded)).split("/")


def _may_spell(segment: str, wanted: str) -> bool:
    """Whether a segment that was decoded once may be another spelling of the wanted one."""
    return (
        segment == wanted
        or unquote(segment) == wanted  # it was encoded twice
        or segment == unquote(wanted)  # it wasn't encoded at all
    )


@functools.lru_cache(_REMEMBERED)
def _bare_host(host: str) -> str:
    """Drop the port and an IPv6 address's brackets."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"] if match else host).lower()
