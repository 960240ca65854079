"""Who may do what: symmetric keys, shared access policies, SAS tokens and X.509 certificates.

All of it is pure: the hub looks up the identity or the policy that a token names, and passes the
keys and the time in (IoT Hub docs: control access with shared access signatures, authenticate
identities with X.509 certificates).
"""

from __future__ import annotations

import base64
import enum
import functools
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import unquote

from msgspec import Struct

from emulator.hub import limits
from emulator.hub.errors import ArgumentInvalid, IotHubUnauthorizedAccess

# What the hub makes itself: 44 characters of base64 (IoT Hub docs: control access with SAS).
_GENERATED_KEY_BYTES = 32

_SCHEME = "SharedAccessSignature "

# How many names of hosts and audiences of good tokens are remembered, with what they say.
_REMEMBERED = 1024

# 9999-12-31T23:59:59Z. The hub's own parsers add `se` to a .NET DateTime, which ends there (EdgeHub
# source: SharedAccessSignature). Milliseconds, given by mistake, are beyond it.
_EXPIRY_MAX = 253_402_300_799
_EXPIRY = re.compile(r"[0-9]{1,12}")

# `[::1]:8443`, `[::1]`, `localhost:8443`, `localhost`. A bare `::1` is none of them.
_HOST = re.compile(r"\[(?P<address>[^\[\]]+)\](?::[0-9]+)?|(?P<name>[^:]+)(?::[0-9]+)?")

_SECRET = re.compile(r"""((?:SharedAccessKey|\bsig)\s*=\s*["']?)[^;&\s"']+""", re.IGNORECASE)
_MASK = "***"


class Right(enum.Flag):
    """What a shared access policy can allow (IoT Hub docs: access control and permissions)."""

    REGISTRY_READ = enum.auto()
    REGISTRY_WRITE = enum.auto()
    SERVICE_CONNECT = enum.auto()
    DEVICE_CONNECT = enum.auto()


# The policies that every hub has from the start (IoT Hub docs: access control and permissions).
DEFAULT_RIGHTS: Mapping[str, Right] = MappingProxyType(
    {
        "iothubowner": (
            Right.REGISTRY_READ
            | Right.REGISTRY_WRITE
            | Right.SERVICE_CONNECT
            | Right.DEVICE_CONNECT
        ),
        "service": Right.SERVICE_CONNECT,
        "device": Right.DEVICE_CONNECT,
        "registryRead": Right.REGISTRY_READ,
        "registryReadWrite": Right.REGISTRY_READ | Right.REGISTRY_WRITE,
    }
)


class SymmetricKeys(Struct, frozen=True):
    """The two keys of an identity or a policy; either one signs.

    Args:
        primary: base64 text, kept exactly as it was given.
        secondary: likewise.

    Raises:
        ArgumentInvalid: a key is not base64, or is not 16 to 64 bytes long when decoded.
    """

    primary: str
    secondary: str

    def __post_init__(self) -> None:
        for key in (self.primary, self.secondary):
            try:
                length = len(_decode(key))
            except ValueError:
                # Without the cause: it may hold the key.
                raise ArgumentInvalid("Invalid device key: not base64") from None
            if length not in limits.KEY_BYTES:
                raise ArgumentInvalid("Invalid device key length")

    def __repr__(self) -> str:
        # A log line or a traceback must not show a key.
        return f"{type(self).__name__}(primary={_MASK}, secondary={_MASK})"

    @classmethod
    def generate(cls) -> SymmetricKeys:
        """Make two random keys."""
        primary, secondary = (
            base64.b64encode(secrets.token_bytes(_GENERATED_KEY_BYTES)).decode() for _ in range(2)
        )
        return cls(primary, secondary)

    @classmethod
    def from_request(cls, primary: object, secondary: object) -> SymmetricKeys:
        """Read the keys of a request body; None and "" both count as absent.

        SDK users pass "" for "make me a key". The texts were seen on a real hub.

        Returns:
            the keys given, or new ones if both are absent.

        Raises:
            ArgumentInvalid: only one key is given, or one is no key.
        """
        absent = [key is None or key == "" for key in (primary, secondary)]
        if all(absent):
            return cls.generate()
        if any(absent):
            raise ArgumentInvalid("Either no keys or both keys can be set")
        if not isinstance(primary, str) or not isinstance(secondary, str):
            raise ArgumentInvalid("Invalid device key: not a string")
        return cls(primary, secondary)


class Policy(Struct, frozen=True):
    """A shared access policy: whoever has one of its keys has its rights."""

    name: str
    rights: Right
    keys: SymmetricKeys

    def allows(self, right: Right) -> bool:
        """Whether it has this right; of several, one will do."""
        # On the values: the operator of Flag makes a new Flag each time.
        return self.rights.value & right.value != 0


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
            hmac.compare_digest(self.signature, hmac.digest(_decode(key), signed, "sha256"))
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


class ClientCertificate(Struct, frozen=True):
    """The certificate that a client has shown in its TLS handshake.

    The client has its private key, and the present time is between its dates.

    Args:
        sha1: its SHA-1 thumbprint, in lower-case hexadecimal.
        sha256: its SHA-256 thumbprint, likewise.
        common_name: of its subject; None if that has none, or several.
        by_authority: whether a CA that is registered with the hub has signed it.
    """

    sha1: str
    sha256: str
    common_name: str | None
    by_authority: bool


def check_certificate(
    certificate: ClientCertificate | None,
    thumbprints: tuple[str | None, str | None] | None,
    *,
    name: str,
) -> None:
    """Let a client pass that has an identity's own certificate.

    Args:
        certificate: what the client has shown, None if nothing.
        thumbprints: the primary and the secondary one of the identity, SHA-1 or SHA-256; None if a
            registered CA is to vouch for it instead.
        name: what a CA-signed certificate must have as its common name: `device`, or
            `device/module` (IoT Hub docs: module twins). A thumbprint needs no name.

    Raises:
        IotHubUnauthorizedAccess: it must not pass. The text is always the service's own; the cause
            says why, for the log.
    """
    if certificate is None:
        reason = "the client has shown no certificate that is valid now"
    elif thumbprints is not None:
        known = {thumbprint.lower() for thumbprint in thumbprints if thumbprint}
        if known & {certificate.sha1, certificate.sha256}:
            return
        primary, secondary = thumbprints
        reason = (  # IoT Hub docs: error 401003
            "Thumbprint does not match configuration: Thumbprint: "
            f"SHA1Hash={certificate.sha1}, SHA2Hash={certificate.sha256}; Configuration: "
            f"PrimaryThumbprint={primary}, SecondaryThumbprint={secondary}"
        )
    elif not certificate.by_authority:
        reason = "no registered CA has signed the certificate"
    elif certificate.common_name != name:
        reason = f"the certificate's common name is {certificate.common_name!r}, not {name!r}"
    else:
        return
    raise IotHubUnauthorizedAccess from ValueError(reason)


def mask_key(connection_string: str) -> str:
    """Give the text without its secrets: `SharedAccessKey=***`, and `sig=***` in a SAS token."""
    return _SECRET.sub(rf"\1{_MASK}", connection_string)


def _decode(key: str) -> bytes:
    """Decode base64; ValueError if it is none."""
    return base64.b64decode(key, validate=True)


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
    signature = _decode(text)
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
