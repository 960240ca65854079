"""Device and module identities: who is registered, with which credentials, under which etag.

The rules are those of IoT Hub docs: identity registry, and of what was seen on a real hub.
"""

from __future__ import annotations

import base64
import re
import secrets
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import NEVER, ticks
from emulator.hub.identities import scopes
from emulator.hub.identities.scopes import NO_SCOPES, Scopes

# The documented characters, and ':' and ';', which older SDKs and the service's regexes allow.
_ID = re.compile(rf"[A-Za-z0-9\-.+%_#*?!(),=@$':;]{{1,{limits.ID_LENGTH}}}", re.ASCII)
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}", re.ASCII)
# The modules that the hub gives to each IoT Edge device, and who manages them (seen on a real hub).
_SYSTEM_MODULES = ("$edgeAgent", "$edgeHub")
_IOT_EDGE = "iotEdge"


class IdentityKey(NamedTuple):
    """Names one device, or one module of it."""

    device_id: str
    module_id: str | None = None

    def __str__(self) -> str:
        """Give `device` or `device/module`: MQTT's client id, too."""
        return f"{self.device_id}/{self.module_id}" if self.module_id else self.device_id

    @property
    def resource(self) -> tuple[str, ...]:
        """Its path in an audience: `("devices", id)` or `("devices", id, "modules", id)`."""
        device = ("devices", self.device_id)
        return device if self.module_id is None else (*device, "modules", self.module_id)

    @property
    def is_system_module(self) -> bool:
        """Whether it is the name of a module that only the hub makes: `$edgeAgent`."""
        return self.module_id is not None and self.module_id.startswith("$")


class Thumbprints(NamedTuple):
    """The SHA-1 or SHA-256 thumbprints of an identity's own certificates, in hexadecimal."""

    primary: str | None
    secondary: str | None


class Authentication(Struct, frozen=True):
    """How an identity proves itself: `type` is sas, selfSigned, certificateAuthority or none."""

    type: str
    keys: SymmetricKeys | None = None
    thumbprints: Thumbprints | None = None

    @classmethod
    def parse(cls, block: JsonObject) -> Authentication:
        """Read the `authentication` member of a request; an empty one means new keys.

        Raises:
            ArgumentInvalid: a key, a thumbprint or the type is none.
        """
        keys = members.block(block, "symmetricKey")
        prints = members.block(block, "x509Thumbprint")
        thumbprints = Thumbprints(
            _thumbprint(prints.get("primaryThumbprint")),
            _thumbprint(prints.get("secondaryThumbprint")),
        )
        # A type left out is told by what was given; keys are the usual case.
        kind = block.get("type") or ("selfSigned" if any(thumbprints) else "sas")
        if kind == "sas":
            generated = SymmetricKeys.from_request(keys.get("primaryKey"), keys.get("secondaryKey"))
            return cls("sas", keys=generated)
        if kind == "selfSigned":
            return cls("selfSigned", thumbprints=thumbprints)
        if kind == "certificateAuthority":
            return cls("certificateAuthority")
        if kind == "none":
            raise ArgumentInvalid("DeviceAuthenticationTypeIsMissing")
        raise ArgumentInvalid(f"Unknown authentication type: {kind}")


# It names thumbprints, none of them anyone's: with neither keys nor these, a CA would vouch for it.
_NO_AUTHENTICATION = Authentication("none", thumbprints=Thumbprints(None, None))


class Identity(Struct, frozen=True):
    """One registered device or module."""

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
        """Base64 of the revision's digits, as a real hub has it."""
        return base64.b64encode(str(self.revision).encode()).decode()

    @property
    def enabled(self) -> bool:
        """Whether it may connect."""
        return self.status == "enabled"


def create(key: IdentityKey, body: object, now: datetime) -> Identity:
    """Make a new identity from a request body: `{"deviceId": "x"}`, with `moduleId` for a module.

    Raises:
        ArgumentInvalid: the id, or a member of the body, is not valid.
    """
    check_id(key.device_id)
    if key.module_id is not None:
        check_id(key.module_id)
        if key.is_system_module:
            raise ArgumentInvalid(f"Module ids that begin with $ are the hub's: {key.module_id}")
    given, wish = _read(key, body)
    generation_id = str(ticks(now))
    if key.module_id is None:
        given["scopes"] = scopes.of_new_device(
            key.device_id, generation_id, wish, iot_edge=given["iot_edge"]
        )
    return Identity(
        key=key,
        generation_id=generation_id,
        revision=_first_revision(),
        status_updated=now if given.get("status") == "disabled" else NEVER,
        **given,
    )


def system_modules(device_id: str, now: datetime) -> list[Identity]:
    """Make the modules of a new IoT Edge device: nothing lets them connect (seen on a real hub)."""
    return [
        Identity(
            key=IdentityKey(device_id, module_id),
            generation_id=str(ticks(now)),
            revision=_first_revision(),
            authentication=_NO_AUTHENTICATION,
            managed_by=_IOT_EDGE,
        )
        for module_id in _SYSTEM_MODULES
    ]


def update(identity: Identity, body: object, now: datetime) -> Identity:
    """Replace what a client may set; members left out fall back, and keys left out are new ones.

    Raises:
        ArgumentInvalid: a member of the body is not valid, or an IoT Edge device doesn't repeat its
            device scope.
        InvalidDeviceScope: a leaf device that becomes an IoT Edge device asks for a scope.
    """
    given, wish = _read(identity.key, body)
    if identity.key.module_id is None:
        given["scopes"] = scopes.of_updated_device(
            identity.key.device_id,
            identity.scopes,
            wish,
            was_edge=identity.iot_edge,
            iot_edge=given["iot_edge"],
        )
    changed = given.get("status", identity.status) != identity.status
    return replace(
        identity,
        revision=identity.revision + 1,
        status_updated=now if changed else identity.status_updated,
        **given,
    )


def check_id(identifier: str) -> None:
    """Refuse an id of the wrong characters or length.

    Raises:
        ArgumentInvalid: 1 to 128 ASCII letters, digits and `-.+%_#*?!(),=@$':;` are allowed.
    """
    if not _ID.fullmatch(identifier):
        raise ArgumentInvalid(
            f"The id '{identifier[: limits.ID_LENGTH]}' is not valid: 1 to {limits.ID_LENGTH} "
            "ASCII letters, digits and the special characters that the documentation names"
        )


def _first_revision() -> int:
    # A number of nine digits or so, at a random start (seen on a real hub).
    return 100_000_000 + secrets.randbelow(900_000_000)


def _read(key: IdentityKey, body: object) -> tuple[dict[str, Any], Scopes]:
    """Read what a client may set, and which scopes it asks for; what only the hub sets is ignored
    (seen on a real hub).
    """
    body = members.document(body)
    if body.get("deviceId") != key.device_id or body.get("moduleId") != key.module_id:
        raise ArgumentInvalid("The id in the body is not the one in the URL")
    authentication = members.block(body, "authentication")
    if key.module_id is not None:
        if authentication.get("type") == "none":  # a module's silently becomes sas
            authentication = {**authentication, "type": "sas"}
        return {
            "authentication": Authentication.parse(authentication),
            "managed_by": members.text(body, "managedBy"),
        }, NO_SCOPES
    status = members.text(body, "status") or "enabled"
    if status.lower() not in ("enabled", "disabled"):
        raise ArgumentInvalid(f"Unknown status: {status}")
    reason = members.text(body, "statusReason")
    if reason is not None and len(reason) > limits.STATUS_REASON_LENGTH:
        raise ArgumentInvalid(f"statusReason is over {limits.STATUS_REASON_LENGTH} characters")
    return {
        "authentication": Authentication.parse(authentication),
        "status": status.lower(),
        "status_reason": reason,
        "iot_edge": members.flag(members.block(body, "capabilities"), "iotEdge"),
    }, scopes.asked(body)


def _thumbprint(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _THUMBPRINT.fullmatch(value):
        raise ArgumentInvalid("StringIsNotThumbprint")
    return value
