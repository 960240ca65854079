"""What a configuration file says of a hub's content: policies, devices, CAs and others.

Types alone: the JSON Schema and the parser are made from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import fields

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import Right
from emulator.hub.core.json import JsonObject
from emulator.hub.identities.identity import IdentityKey, Thumbprints

# The rights of a policy, as Azure Resource Manager writes them.
RIGHTS = {
    "RegistryRead": Right.REGISTRY_READ,
    "RegistryWrite": Right.REGISTRY_WRITE,
    "ServiceConnect": Right.SERVICE_CONNECT,
    "DeviceConnect": Right.DEVICE_CONNECT,
    "ServiceConfig": Right.SERVICE_CONFIG,
    "EnrollmentRead": Right.ENROLLMENT_READ,
    "EnrollmentWrite": Right.ENROLLMENT_WRITE,
    "RegistrationStatusRead": Right.REGISTRATION_STATUS_READ,
    "RegistrationStatusWrite": Right.REGISTRATION_STATUS_WRITE,
}
_RightName: TypeAlias = Literal[
    "RegistryRead",
    "RegistryWrite",
    "ServiceConnect",
    "DeviceConnect",
    "ServiceConfig",
    "EnrollmentRead",
    "EnrollmentWrite",
    "RegistrationStatusRead",
    "RegistrationStatusWrite",
]

_Key: TypeAlias = Annotated[str, Meta(description="16 to 64 bytes in base64")]
_Thumbprint: TypeAlias = Annotated[
    str, Meta(description="SHA-1 or SHA-256 of a certificate, in hexadecimal")
]


class _Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """An entry of the file. A missing member leaves in the hub what is there."""

    def members(self) -> JsonObject:
        """Return the members that the file has, by their names there."""
        found = {each.encode_name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if value is not UNSET}


class _WithKeys(_Entry, frozen=True, kw_only=True):
    primary_key: _Key | UnsetType = UNSET
    secondary_key: _Key | UnsetType = UNSET

    @property
    def keys(self) -> SymmetricKeys | None:
        """The keys; a missing one is the same as the other one. None if both are missing.

        Raises:
            ArgumentInvalid: a key is invalid.
        """
        primary = self.primary_key or self.secondary_key
        if not primary:
            return None
        return SymmetricKeys(primary, self.secondary_key or primary)


class PolicyEntry(_WithKeys, frozen=True, kw_only=True):
    """A shared access policy: a new one, or one that every hub has."""

    name: Annotated[str, Meta(min_length=1)]
    rights: tuple[_RightName, ...] | UnsetType = UNSET

    @property
    def right(self) -> Right | None:
        """The rights as one value; None if the entry names none."""
        if self.rights is UNSET:
            return None
        found = Right(0)
        for name in self.rights:
            found |= RIGHTS[name]
        return found


class _IdentityEntry(_WithKeys, frozen=True, kw_only=True):
    id: str
    authentication: Annotated[
        Literal["sas", "selfSigned", "certificateAuthority"] | UnsetType,
        Meta(description="sas, or selfSigned if a thumbprint is given"),
    ] = UNSET
    primary_thumbprint: _Thumbprint | UnsetType = UNSET
    secondary_thumbprint: _Thumbprint | UnsetType = UNSET
    tags: Annotated[
        JsonObject, Meta(description="tags of the twin, merged into those that it has")
    ] = {}
    desired: Annotated[
        JsonObject, Meta(description="desired properties, merged into those that the twin has")
    ] = {}

    @property
    def thumbprints(self) -> Thumbprints | None:
        """The thumbprints; None if both are missing."""
        pair = Thumbprints(self.primary_thumbprint or None, self.secondary_thumbprint or None)
        return pair if any(pair) else None


class ModuleEntry(_IdentityEntry, frozen=True, kw_only=True):
    """A module of a device."""

    managed_by: str | UnsetType = UNSET


class DeviceEntry(_IdentityEntry, frozen=True, kw_only=True):
    """A device, with its modules."""

    status: Literal["enabled", "disabled"] | UnsetType = UNSET
    status_reason: str | UnsetType = UNSET
    iot_edge: bool | UnsetType = UNSET
    modules: tuple[ModuleEntry, ...] = ()


class CertificateEntry(_Entry, frozen=True, kw_only=True):
    """A CA that signs the certificates of devices: the body of `/_emulator/certificates`."""

    name: Annotated[str, Meta(min_length=1)]
    path: Annotated[
        str | UnsetType, Meta(description="its file, PEM or DER, beside this file; not in requests")
    ] = UNSET
    certificate: Annotated[
        str | UnsetType, Meta(description="PEM, or base64 of PEM or DER, in place of the path")
    ] = UNSET
    verified: Annotated[bool, Meta(description="false waits for a proof of possession")] = True


class ConfigurationEntry(_Entry, frozen=True, kw_only=True):
    """An automatic device configuration: the body of `PUT /configurations/{id}`."""

    id: Annotated[str, Meta(min_length=1)]
    content: JsonObject
    schema_version: str | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType | None = UNSET
    target_condition: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    metrics: JsonObject | UnsetType = UNSET
    # The hub's own, which an answer of the REST API has too.
    system_metrics: JsonObject | UnsetType = UNSET
    created_time_utc: str | UnsetType = UNSET
    last_updated_time_utc: str | UnsetType = UNSET
    etag: str | UnsetType = UNSET


IdentityEntry: TypeAlias = DeviceEntry | ModuleEntry


class Content(_Entry, frozen=True, kw_only=True):
    """What a file says of a hub, without settings."""

    policies: tuple[PolicyEntry, ...] = ()
    devices: tuple[DeviceEntry, ...] = ()
    certificates: Annotated[
        tuple[CertificateEntry, ...], Meta(description="CAs that sign the certificates of devices")
    ] = ()
    configurations: Annotated[
        tuple[ConfigurationEntry, ...],
        Meta(description="automatic device configurations, each as the body of the REST API"),
    ] = ()
    faults: Annotated[
        tuple[JsonObject, ...], Meta(description="faults, each as the body of /_emulator/faults")
    ] = ()

    def identities(self) -> list[tuple[str, IdentityKey, IdentityEntry]]:
        """Return each device and module, with its place in the file: `devices[2].modules[0]`."""
        found: list[tuple[str, IdentityKey, IdentityEntry]] = []
        for number, device in enumerate(self.devices):
            place = f"devices[{number}]"
            found.append((place, IdentityKey(device.id), device))
            found += (
                (f"{place}.modules[{position}]", IdentityKey(device.id, module.id), module)
                for position, module in enumerate(device.modules)
            )
        return found


# The lists of a file, with the type of each entry.
ENTRIES: dict[str, Any] = {
    "policies": PolicyEntry,
    "devices": DeviceEntry,
    "certificates": CertificateEntry,
    "configurations": ConfigurationEntry,
    "faults": JsonObject,
}
