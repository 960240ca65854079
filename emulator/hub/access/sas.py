"""SAS tokens: parsed, and checked against a key, a resource and a time.

Pure functions: the gate finds the identity or the policy of a token, and passes its keys and the
time (IoT Hub docs: control access with shared access signatures).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hmac
import re
from collections.abc import Collection, Sequence
from urllib.parse import unquote

from msgspec import Struct

from emulator.hub.access.keys import SymmetricKeys, decode_key
from emulator.hub.access.token_time import TokenTime
from emulator.hub.core.errors import IotHubUnauthorizedAccess

_SCHEME = "SharedAccessSignature "

# The size of the caches of parsed audiences and hosts.
_REMEMBERED = 1024

# 9999-12-31T23:59:59Z, the end of .NET's DateTime: the hub's own parsers add `se` to one (EdgeHub
# source: SharedAccessSignature). A time in milliseconds, a common mistake, is beyond it.
_EXPIRY_MAX = 253_402_300_799
_EXPIRY = re.compile(r"[0-9]{1,12}")

# `[::1]:8443`, `[::1]`, `localhost:8443`, `localhost`; not `::1`.
_HOST = re.compile(r"\[(?P<address>[^\[\]]+)\](?::[0-9]+)?|(?P<name>[^:]+)(?::[0-9]+)?")


class SasToken(Struct, frozen=True):
    """A SAS token: `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, its fields in any order.

    Args:
        audience: `sr`, unchanged and URL-encoded, because the signature covers this text.
        signature: `sig`, decoded.
        expiry: `se`, in seconds since the epoch.
        policy: `skn`, the policy whose key signed; None for an identity's own key.
        expiry_text: `se`, unchanged, because the signature covers this text.
    """

    audience: str
    signature: bytes
    expiry: int
    policy: str | None
    expiry_text: str

    def __repr__(self) -> str:
        # Without the signature, which would make it a valid token.
        return f"{type(self).__name__}(audience={self.audience!r}, policy={self.policy!r})"

    @classmethod
    def parse(cls, text: str) -> SasToken:
        """Parse a token from an `Authorization` header or a password.

        The scheme is case-sensitive, as in EdgeHub. Unknown fields are ignored.

        Raises:
            IotHubUnauthorizedAccess: the token is malformed; the cause has the reason.
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

    @property
    def is_for_event_hubs(self) -> bool:
        """Whether the audience is a URI: `sb://…`, or `amqps://…` in .NET."""
        return _scheme_end(_segments(self.audience)) > 0

    @property
    def path(self) -> Sequence[str]:
        """The path of the audience, decoded and in lower case, without the host."""
        segments = _segments(self.audience)
        path = segments[_scheme_end(segments) + 1 :]
        return path[:-1] if path and not path[-1] else path

    def covers_entity(self, resource: Sequence[str]) -> bool:
        """Return whether a token for Event Hubs is for a resource, or a parent of it.

        The host can have any name: a client can be told to use another address (custom endpoint).
        Clients write `ConsumerGroups` and `consumergroups`.
        """
        path = list(self.path)
        return self.is_for_event_hubs and path == [part.lower() for part in resource[: len(path)]]

    def covers(self, resource: Sequence[str], hosts: Collection[str]) -> bool:
        """Return whether the audience is the resource, or a parent of it, on one of the hosts.

        `hub/devices/a` covers itself and `hub/devices/a/modules/m`, not `hub/devices/ab`; `hub`
        covers everything. Letter case is ignored, also in ids: documentation and clients write the
        URI in lower case (IoT Hub docs: control access with SAS). Ids stay case-sensitive, because
        the key decides. A policy's key opens every device anyway.

        The audience of a policy's token must be URL-encoded once, as documented. So the token never
        covers two devices whose ids differ in more than letter case. A token without a policy is
        signed with the key of the identity, which proves its identity. So its `sr` can also have
        the ids encoded twice (C# SDK, Edge) or not at all (C SDK).

        Args:
            resource: the path of the request, decoded, as segments: `("devices", "a")`; empty for
                the service.
            hosts: the names of the hub. Ports and letter case are ignored.
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
        return all(segment == wanted.lower() for segment, wanted in pairs)


def check_signature(token: SasToken, keys: SymmetricKeys) -> None:
    """Check that one of two keys signed a token.

    The key of a token for Event Hubs is the text of the key, which is not decoded (Event Hubs docs:
    authenticate access with shared access signatures).

    Args:
        token: the token.
        keys: the keys of its policy, or of the identity if the token names no policy.

    Raises:
        IotHubUnauthorizedAccess: the token is invalid. The text is always the service's own; the
            cause has the reason, for the log.
    """
    signed = f"{token.audience}\n{token.expiry_text}".encode()
    decode = str.encode if token.is_for_event_hubs else decode_key
    # Both keys are always compared, so that the time shows nothing about the right one.
    matches = [
        hmac.compare_digest(token.signature, hmac.digest(decode(key), signed, "sha256"))
        for key in (keys.primary, keys.secondary)
    ]
    if not any(matches):
        raise IotHubUnauthorizedAccess from ValueError(
            "wrong key: the SAS token is signed with neither the primary nor the secondary key"
        )


def check_reach(
    token: SasToken, *, resource: Sequence[str], hosts: Collection[str] | None, time: TokenTime
) -> None:
    """Check the expiry time and the audience of a token.

    Args:
        token: the token.
        resource: see `SasToken.covers`.
        hosts: see `SasToken.covers`; None stands for an entity of Event Hubs, on any host.
        time: the time by which it is judged.

    Raises:
        IotHubUnauthorizedAccess: as `check_signature`.
    """
    if time.is_over(token.expiry):
        reason = f"the SAS token expired: se is {token.expiry}, {time}"
    elif not (token.covers_entity(resource) if hosts is None else token.covers(resource, hosts)):
        wanted = "/".join(resource) or "the hub"
        where = "Event Hubs" if hosts is None else sorted(hosts)
        reason = f"the SAS token is for {token.audience!r}, not for {wanted!r} on {where}"
    else:
        return
    raise IotHubUnauthorizedAccess from ValueError(reason)


def _fields(text: str) -> dict[str, str]:
    """Split a token into its fields, still URL-encoded; raise ValueError if it is malformed."""
    if not text.isascii() or not text.startswith(_SCHEME):
        raise ValueError("not a SAS token")
    # Only the first '=' separates: an id in an unencoded sr can contain another one.
    pairs = [part.partition("=") for part in text[len(_SCHEME) :].split("&")]
    fields = {name: value for name, _, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("a SAS token with a field twice")
    for name in ("sr", "sig", "se"):
        if not fields.get(name):
            raise ValueError(f"a SAS token without {name}")
    return fields


def _signature(value: str) -> bytes:
    # Not unquote_plus: an unencoded '+' is a digit of base64.
    text = unquote(value)
    signature = None
    with contextlib.suppress(ValueError):
        signature = decode_key(text)
    # The last digit has unused bits, so without this check other texts would be the same signature.
    if signature is None or base64.b64encode(signature).decode() != text:
        raise ValueError("a SAS token whose sig is not base64")
    return signature


def _expiry(text: str) -> int:
    if not _EXPIRY.fullmatch(text) or int(text) > _EXPIRY_MAX:
        raise ValueError("a SAS token whose se is not seconds since the epoch, in decimal digits")
    return int(text)


@functools.lru_cache(_REMEMBERED)
def _segments(audience: str) -> Sequence[str]:
    """Split `sr` at its slashes, decode it, and lower its case; the first segment is the host."""
    if "/" in audience:
        # The slashes are not encoded, so an encoded slash is a part of a segment.
        return [unquote(segment).lower() for segment in audience.split("/")]
    decoded = unquote(audience)
    # Without a slash it is a host alone, or it is encoded twice. The name of a host has no '%'.
    return (decoded if "/" in decoded else unquote(decoded)).lower().split("/")


def _scheme_end(segments: Sequence[str]) -> int:
    """Return the index of the host: behind `sb:` and an empty segment, if there is a scheme."""
    return 2 if len(segments) > 2 and segments[0].endswith(":") and not segments[1] else 0


def _may_spell(segment: str, wanted: str) -> bool:
    """Return whether a segment, decoded once and in lower case, can spell the wanted one.

    Its client encoded it once, or twice, or not at all.
    """
    spellings = segment, unquote(segment).lower()
    return wanted.lower() in spellings or segment == unquote(wanted).lower()


@functools.lru_cache(_REMEMBERED)
def _bare_host(host: str) -> str:
    """Return a host without its port and without the brackets of an IPv6 address."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"] if match else host).lower()
