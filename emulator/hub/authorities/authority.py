"""A CA that is registered with the hub, as a record."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject

# Azure Resource Manager: Microsoft.Devices/IotHubs/certificates.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TYPE = "Microsoft.Devices/IotHubs/Certificates"


class AuthorityKey(NamedTuple):
    """The key of a CA: its name in lower case, as names in Azure Resource Manager are compared."""

    name: str


class Authority(Struct, frozen=True):
    """A CA.

    Args:
        name: as its owner wrote it.
        certificate: its certificate, DER.
        subject: the subject of the certificate, as in RFC 4514.
        common_name: the common name of the subject; None if it has none or several.
        expiry: the end of the certificate.
        verified: whether its owner has proved to have the key, or has said so. A CA that is not
            verified authenticates nothing.
        created: when it was registered.
        updated: when it was last changed.
        code: the verification code that waits for a proof.
        etag: names this state.
    """

    name: str
    certificate: bytes
    subject: str
    common_name: str | None
    expiry: datetime
    verified: bool
    created: datetime
    updated: datetime
    code: str | None = None
    etag: str = ""

    @property
    def key(self) -> AuthorityKey:
        """See `Record.key`."""
        return key_of(self.name)

    def document(self, *, with_code: bool = False) -> JsonObject:
        """Return it as Azure Resource Manager writes it, without the id of a resource."""
        properties = {
            "subject": self.subject,
            "expiry": _rfc1123(self.expiry),
            # SHA-1 names the certificate; it secures nothing.
            "thumbprint": hashlib.sha1(self.certificate, usedforsecurity=False).hexdigest().upper(),
            "isVerified": self.verified,
            "created": _rfc1123(self.created),
            "updated": _rfc1123(self.updated),
            "certificate": base64.b64encode(self.certificate).decode(),
        }
        if with_code:
            properties["verificationCode"] = self.code or ""
        return {"name": self.name, "type": _TYPE, "etag": self.etag, "properties": properties}


def key_of(name: str) -> AuthorityKey:
    """Return the key of a name."""
    return AuthorityKey(name.lower())


def check_name(name: str) -> None:
    """Check the name of a new CA.

    Raises:
        ArgumentInvalid
    """
    if not _NAME.fullmatch(name):
        raise ArgumentInvalid(
            f"Invalid name {name[:64]!r}: use 1 to 64 ASCII letters, digits and - . _"
        )


def new_etag() -> str:
    """Return an etag that no other state has."""
    return base64.b64encode(secrets.token_bytes(8)).decode()


def _rfc1123(time: datetime) -> str:
    """Return `Sat, 31 Oct 2026 20:59:09 GMT`."""
    # Not strftime, whose names of days depend on the locale.
    from email.utils import format_datetime

    return format_datetime(time.replace(microsecond=0), usegmt=True)
