"""Device and module identities, with their credentials and etags.

The rules are from IoT Hub docs: identity registry, and from a real hub.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.core import etags, limits, members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import NEVER, ticks
from emulator.hub.feed import Change
from emulator.hub.identities import scopes
from emulator.hub.identities.scopes import NO_SCOPES, Scopes

# The documented characters, and ':' and ';', which older SDKs and the service's regexes allow.
_ID = re.compile(rf"[A-Za-z0-9\-.+%_#*?!(),=@$':;]{{1,{limits.ID_LENGTH}}}", re.ASCII)
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}", re.ASCII)
# The hub creates these modules on each IoT Edge device (seen on a real hub).
_SYSTEM_MODULES = ("$edgeAgent", "$edgeHub")


# The members that a client can set (swagger of the service API).
FORM = members.Form(
    *("deviceId", "moduleId", "managedBy", "status", "statusReason", "deviceScope", "parentScopes"),
    authentication=members.Form(
        "type",
        symmetricKey=members.Form("primaryKey", "secondaryKey"),
        x509Thumbprint=members.Form("primaryThumbprint", "secondaryThumbprint"),
    ),
    capabilities=members.Form("iotEdge"),
)


class IdentityKey(NamedTuple):
    """The key of a device, or of a module of it."""

    device_id: str
    module_id: str | None = None

    def __str__(self) -> str:
        """Return `device` or `device/module`, which is also the client id of MQTT."""
        return f"{self.device_id}/{self.module_id}" if self.module_id else self.device_id

    @property
    def resource(self) -> tuple[str, ...]:
        """The path in an audience: `("devices", id)` or `("devices", id, "modules", id)`."""
        device = ("devices", self.device_id)
        return device if self.module_id is None else (*device, "modules", self.module_id)

    @property
    def is_system_module(self) -> bool:
        """Whether only the hub can create a module of this id: `$edgeAgent`."""
        return self.module_id is not None and self.module_id.startswith("$")


class Thumbprints(NamedTuple):
    """The SHA-1 or SHA-256 thumbprints of an identity's own certificates, in hexadecimal."""

    primary: str | None
    secondary: str | None


class Authentication(Struct, frozen=True):
    """The credentials of an identity: `type` is sas, selfSigned, certificateAuthority or none."""

    type: str
    keys: SymmetricKeys | None = None
    thumbprints: Thumbprints | None = None

    @classmethod
    def parse(cls, block: JsonObject) -> Authentication:
        """Parse the `authentication` member of a request; an empty one means new keys.

        Raises:
            ArgumentInvalid: a key, a thumbprint or the type is invalid.
        """
        keys = members.block(block, "symmetricKey")
        prints = members.block(block, "x509Thumbprint")
        thumbprints = Thumbprints(
            _thumbprint(prints.get("primaryThumbprint")),
            _thumbprint(prints.get("secondaryThumbprint")),
        )
        # Without a type, thumbprints mean selfSigned.
        kind = block.get("type") or ("selfSigned" if any(thumbprints) else "sas")
        if kind == "sas":
            pair = SymmetricKeys.from_request(keys.get("primaryKey"), keys.get("secondaryKey"))
            return cls("sas", keys=pair)
        if kind == "selfSigned":
            return cls("selfSigned", thumbprints=thumbprints)
        if kind == "certificateAuthority":
            return cls("certificateAuthority")
        if kind == "none":
            raise ArgumentInvalid("DeviceAuthenticationTypeIsMissing")
        raise ArgumentInvalid(
            f"Unknown authentication type: {kind}. Use sas, selfSigned or certificateAuthority"
        )


# Without keys and without thumbprints, a certificate that a CA signed would be enough.
_NO_AUTHENTICATION = Authentication("none", thumbprints=Thumbprints(None, None))


class Identity(Struct, frozen=True):
    """A registered device or module."""

    key: IdentityKey
    generation_id: str
    revision: int
    authentication: Authentication
    status: str = "enabled"
    status_reason: str | None = None
    status_updated: datetime = NEVER
    iot_edge: bool = False
    scopes: Scopes = NO_SCOPES
    managed_by: str | None = None
    model_id: str = ""

    @property
    def etag(self) -> str:
        """See `etags.of_revision`."""
        return etags.of_revision(self.revision)

    @property
    def enabled(self) -> bool:
        """Whether it is allowed to connect."""
        return self.status == "enabled"


class _IdentityChange(Change, frozen=True):
    identity: Identity
    time: datetime

    @property
    def key(self) -> IdentityKey:
        """The key of the identity."""
        return self.identity.key


class IdentityCreated(_IdentityChange, frozen=True):
    """A device or module was created."""


class IdentityChanged(_IdentityChange, frozen=True):
    """A device or module was updated."""

    before: Identity


class IdentityDeleted(_IdentityChange, frozen=True):
    """A device or module was deleted, with its twin."""


def create(key: IdentityKey, body: object, now: datetime) -> Identity:
    """Return a new identity from a request body: `{"deviceId": "x"}`, with `moduleId` for a module.

    Raises:
        ArgumentInvalid: the id or a member of the body is invalid.
    """
    check_id(key.device_id)
    if key.module_id is not None:
        check_id(key.module_id)
        if key.is_system_module:
            raise ArgumentInvalid(
                f"Invalid module id: {key.module_id}. Only the hub creates modules whose id begins "
                "with $"
            )
    fields, requested = _parse(key, body)
    generation_id = str(ticks(now))
    if key.module_id is None:
        fields["scopes"] = scopes.of_new_device(
            key.device_id, generation_id, requested, iot_edge=fields["iot_edge"]
        )
    return Identity(
        key=key,
        generation_id=generation_id,
        revision=_first_revision(),
        status_updated=now if fields.get("status") == "disabled" else NEVER,
        **fields,
    )


def system_modules(device_id: str, now: datetime) -> list[Identity]:
    """Return the modules of a new IoT Edge device, which cannot connect (seen on a real hub)."""
    return [
        Identity(
            key=IdentityKey(device_id, module_id),
            generation_id=str(ticks(now)),
            revision=_first_revision(),
            authentication=_NO_AUTHENTICATION,
            managed_by="iotEdge",
        )
        for module_id in _SYSTEM_MODULES
    ]


def update(identity: Identity, body: object, now: datetime) -> Identity:
    """Return an identity after an update, which replaces every member that a client can set.

    A missing member gets its default value; missing keys are generated.

    Raises:
        ArgumentInvalid: a member of the body is invalid, or the body for an IoT Edge device does
            not repeat its device scope.
        InvalidDeviceScope: a leaf device becomes an IoT Edge device, and the body has a scope.
    """
    fields, requested = _parse(identity.key, body)
    if identity.key.module_id is None:
        was_edge, iot_edge = identity.iot_edge, fields["iot_edge"]
        fields["scopes"] = scopes.of_updated_device(
            identity.key.device_id, identity.scopes, requested, was_edge=was_edge, iot_edge=iot_edge
        )
    changed = fields.get("status", identity.status) != identity.status
    return replace(
        identity,
        revision=identity.revision + 1,
        status_updated=now if changed else identity.status_updated,
        **fields,
    )


def check_id(identifier: str) -> None:
    """Check the characters and the length of an id.

    Raises:
        ArgumentInvalid: 1 to 128 ASCII letters, digits and `-.+%_#*?!(),=@$':;` are allowed.
    """
    if not _ID.fullmatch(identifier):
        raise ArgumentInvalid(
            f"Invalid id '{identifier[: limits.ID_LENGTH]}': use 1 to {limits.ID_LENGTH} ASCII "
            "letters, digits and - . + % _ # * ? ! ( ) , = @ $ ' : ;"
        )


def _first_revision() -> int:
    # A random number of nine digits (seen on a real hub).
    return 100_000_000 + secrets.randbelow(900_000_000)


def _parse(key: IdentityKey, body: object) -> tuple[dict[str, Any], Scopes]:
    """Return the members that a client can set, and the scopes that it requests.

    The other members are ignored (seen on a real hub).
    """
    body = members.document(body, FORM)
    if body.get("deviceId") != key.device_id or body.get("moduleId") != key.module_id:
        raise ArgumentInvalid("The ids in the body and in the URL differ")
    authentication = members.block(body, "authentication")
    if key.module_id is not None:
        if authentication.get("type") == "none":  # becomes sas for a module (seen on a real hub)
            authentication = {**authentication, "type": "sas"}
        managed_by = members.text(body, "managedBy")
        _check_length("managedBy", managed_by, limits.MANAGED_BY_LENGTH)
        return {
            "managed_by": managed_by,
            "authentication": Authentication.parse(authentication),
        }, NO_SCOPES
    status = body.get("status") or "enabled"
    if not isinstance(status, str) or status.lower() not in ("enabled", "disabled"):
        raise ArgumentInvalid(f"Unknown status: {status}. Use enabled or disabled")
    reason = members.text(body, "statusReason")
    _check_length("statusReason", reason, limits.STATUS_REASON_LENGTH)
    iot_edge = members.block(body, "capabilities").get("iotEdge") or False
    if not isinstance(iot_edge, bool):
        raise ArgumentInvalid("capabilities.iotEdge is not a boolean")
    return {
        "authentication": Authentication.parse(authentication),
        "status": status.lower(),
        "status_reason": reason,
        "iot_edge": iot_edge,
    }, scopes.asked(body)


def _check_length(name: str, text: str | None, maximum: int) -> None:
    if text is not None and len(text) > maximum:
        raise ArgumentInvalid(f"{name} has {len(text)} characters. {maximum} are allowed")


def _thumbprint(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _THUMBPRINT.fullmatch(value):
        raise ArgumentInvalid("StringIsNotThumbprint")
    return value
