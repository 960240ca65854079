"""Enrollments: which devices may register, alone or as a group, and where they are assigned."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from emulator.dps import attestation, limits
from emulator.dps.attestation import Attestation
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid, HubError, MessageTooLarge
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.store import Key
from emulator.hub.core.times import NEVER, iso
from emulator.hub.feed import ServiceChange
from emulator.hub.identities import identity as identities
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes

# DPS docs: terminology, registration ID.
_ID = re.compile(rf"[A-Za-z0-9._:-]{{0,{limits.ID_LENGTH - 1}}}[A-Za-z0-9-]", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?", re.ASCII)

HASHED, GEO_LATENCY, STATIC, CUSTOM = "hashed", "geoLatency", "static", "custom"
POLICIES = HASHED, GEO_LATENCY, STATIC, CUSTOM
_STATUSES = "enabled", "disabled"


def _form(*names: str) -> members.Form:
    """Return the form of an enrollment with the members that groups have too."""
    return members.Form(
        *("etag", "provisioningStatus", "iotHubHostName", "allocationPolicy", "iotHubs", *names),
        attestation=attestation.FORM,
        capabilities=members.Form("iotEdge"),
        initialTwin=members.Form("tags", properties=members.Form("desired")),
        reprovisionPolicy=members.Form("updateHubAssignment", "migrateDeviceData"),
        customAllocationDefinition=members.Form("webhookUrl", "apiVersion"),
    )


FORM = _form("registrationId", "deviceId", "optionalDeviceInformation")
GROUP_FORM = _form("enrollmentGroupId")


class Webhook(Struct, frozen=True):
    """The program that allocates devices to hubs, on this machine."""

    url: str
    api_version: str


class EnrollmentChanged(ServiceChange, frozen=True):
    """An enrollment was created, replaced or deleted."""


class Enrollment(Struct, frozen=True):
    """An individual enrollment, or an enrollment group.

    Args:
        id: the registration id, or the id of the group, as its creator wrote it.
        is_group: whether it is a group.
        attestation: how its devices prove that they are these.
        etag: changes with each write.
        created: when it was created.
        updated: when it was written.
        device_id: the id of the device in the hub; None is the registration id.
        enabled: whether its devices may register.
        iot_edge: whether its devices are IoT Edge devices.
        host_name: the one hub of older clients (`iotHubHostName`).
        allocation: hashed, geoLatency, static or custom.
        iot_hubs: the hubs to choose from; empty means every linked hub.
        webhook: the program that chooses, if the allocation is custom.
        initial_twin: the first tags and desired properties.
        update_assignment: whether a device that registers again can be assigned to another hub.
        migrate_data: whether its twin moves with it then.
        information: what the creator notes about the device.
    """

    id: str
    is_group: bool
    attestation: Attestation
    etag: str
    created: datetime
    updated: datetime
    device_id: str | None = None
    enabled: bool = True
    iot_edge: bool = False
    host_name: str | None = None
    allocation: str = HASHED
    iot_hubs: tuple[str, ...] = ()
    webhook: Webhook | None = None
    initial_twin: JsonObject | None = None
    update_assignment: bool = True
    migrate_data: bool = True
    information: JsonObject | None = None

    @property
    def key(self) -> Key:
        """See `Record.key`; letter case does not matter in an id."""
        return key(self.id, is_group=self.is_group)

    def document(self, *, with_keys: bool = False) -> JsonObject:
        """Return it for a service; the answer to a write has the keys (seen on the service)."""
        own: JsonObject = {"enrollmentGroupId": self.id}
        if not self.is_group:
            own = {"registrationId": self.id, "deviceId": self.device_id}
        values = {
            **own,
            "attestation": self.attestation.document(with_keys=with_keys),
            "capabilities": {"iotEdge": self.iot_edge},
            "iotHubHostName": self.host_name,
            "initialTwin": self.initial_twin,
            "etag": f'"{self.etag}"',
            "provisioningStatus": _STATUSES[not self.enabled],
            "reprovisionPolicy": {
                "updateHubAssignment": self.update_assignment,
                "migrateDeviceData": self.migrate_data,
            },
            "createdDateTimeUtc": iso(self.created),
            "lastUpdatedDateTimeUtc": iso(self.updated),
            "allocationPolicy": self.allocation,
            "iotHubs": list(self.iot_hubs) or None,
            "customAllocationDefinition": self.webhook
            and {"webhookUrl": self.webhook.url, "apiVersion": self.webhook.api_version},
            "optionalDeviceInformation": self.information,
        }
        return {name: value for name, value in values.items() if value is not None}


def key(identifier: str, *, is_group: bool) -> Key:
    """Return the key of an enrollment in a store."""
    return ("group" if is_group else "individual", identifier.lower())


def check_id(identifier: str) -> None:
    """Check a registration id, or the id of a group.

    Raises:
        ArgumentInvalid
    """
    if not _ID.fullmatch(identifier):
        raise ArgumentInvalid(
            f"Invalid id '{identifier[: limits.ID_LENGTH]}': use 1 to {limits.ID_LENGTH} letters, "
            "digits and - . _ : with a letter, a digit or - at the end"
        )


def new_etag() -> str:
    """Return an etag in the form of the service."""
    return f"{secrets.token_hex(4)}-0000-0100-0000-{secrets.token_hex(4)}0000"


def write(
    identifier: str, body: object, before: Enrollment | None, now: datetime, *, is_group: bool
) -> Enrollment:
    """Return a new enrollment, or what replaces an older one.

    Args:
        identifier: the id in the URL.
        body: the body of the request.
        before: the enrollment that it replaces; None if it is new.
        now: the time.
        is_group: whether it is a group.

    Raises:
        ArgumentInvalid, DeserializationError: the id or a member of the body is invalid.
        MessageTooLarge
    """
    check_id(identifier)
    body = members.document(body, GROUP_FORM if is_group else FORM)
    name = "enrollmentGroupId" if is_group else "registrationId"
    if str(members.text(body, name) or "").lower() != identifier.lower():
        raise ArgumentInvalid(f"{name} in the body and the id in the URL differ")
    device_id = None if is_group else members.text(body, "deviceId") or None
    if device_id is not None:
        identities.check_id(device_id)
    policy = members.block(body, "reprovisionPolicy")
    enrollment = Enrollment(
        id=before.id if before is not None else identifier,
        is_group=is_group,
        attestation=Attestation.parse(
            members.block(body, "attestation"),
            group=is_group,
            before=before.attestation if before is not None else None,
        ),
        etag=new_etag(),
        created=before.created if before is not None else now,
        updated=now,
        device_id=device_id,
        enabled=_choice(body, "provisioningStatus", _STATUSES) == "enabled",
        iot_edge=members.flag(members.block(body, "capabilities"), "iotEdge"),
        initial_twin=initial_twin(body),
        update_assignment=policy.get("updateHubAssignment") is None
        or members.flag(policy, "updateHubAssignment"),
        migrate_data=policy.get("migrateDeviceData") is None
        or members.flag(policy, "migrateDeviceData"),
        information=members.block(body, "optionalDeviceInformation") or None,
    )
    written = replace(enrollment, **_allocation(body))
    if (size := len(dumps(written.document()))) > limits.ENROLLMENT_BYTES:
        raise MessageTooLarge(
            f"The enrollment has {size} bytes. {limits.ENROLLMENT_BYTES} are allowed"
        )
    return written


def _allocation(body: JsonObject) -> dict[str, Any]:
    """Return the members that say where devices are assigned."""
    host_name = members.text(body, "iotHubHostName") or None
    hubs = body.get("iotHubs") or []
    if not isinstance(hubs, list) or len(hubs) > limits.IOT_HUBS:
        raise ArgumentInvalid(f"iotHubs is not a list of at most {limits.IOT_HUBS} host names")
    for hub in [*hubs, *([host_name] if host_name else [])]:
        check_host(hub)
    # An older client names its hub in this way, and no policy.
    default = STATIC if host_name and not hubs else HASHED
    policy = _choice(body, "allocationPolicy", POLICIES, default)
    if policy == STATIC and len(hubs) > 1:
        raise ArgumentInvalid(f"allocationPolicy static has {len(hubs)} iotHubs. Use one")
    webhook = _webhook(members.block(body, "customAllocationDefinition"))
    if policy == CUSTOM and webhook is None:
        raise ArgumentInvalid("allocationPolicy custom needs a customAllocationDefinition")
    return {
        "host_name": host_name,
        "allocation": policy,
        "iot_hubs": tuple(hubs),
        "webhook": webhook,
    }


def check_host(host: object) -> None:
    """Check the host name of a hub.

    Raises:
        ArgumentInvalid
    """
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise ArgumentInvalid(f"Invalid host name of a hub: {str(host)[:100]}. Leave the port out")


def _webhook(block: JsonObject) -> Webhook | None:
    url, version = members.text(block, "webhookUrl"), members.text(block, "apiVersion")
    if not url:
        return None
    if not _is_local(url):
        raise ArgumentInvalid(
            f"webhookUrl {url[:100]} is not on this machine. Use a URL such as "
            "http://localhost:7071/api/allocate"
        )
    return Webhook(url, version or "")


def _is_local(url: str) -> bool:
    """Return whether a URL is one of this machine: the service calls no other machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        return parts.scheme in ("http", "https") and (
            host == "localhost" or ip_address(host).is_loopback
        )
    except ValueError:
        return False


def _choice(
    body: JsonObject, name: str, allowed: tuple[str, ...], default: str | None = None
) -> str:
    value = members.text(body, name) or default or allowed[0]
    for each in allowed:
        if value.lower() == each.lower():
            return each
    raise ArgumentInvalid(f"Invalid {name}: {value[:100]}. Use {', '.join(allowed)}")


def initial_twin(body: JsonObject) -> JsonObject | None:
    """Return the initial twin, which must be one that a hub accepts."""
    twin = members.block(body, "initialTwin")
    parts: JsonObject = {}
    if tags := members.block(twin, "tags"):
        parts["tags"] = _own(tags)
    if desired := members.block(members.block(twin, "properties"), "desired"):
        parts["properties"] = {"desired": _own(desired)}
    if not parts:
        return None
    try:
        writes.patch(twins.create(IdentityKey("twin"), NEVER), parts, NEVER)
    except HubError as error:
        raise ArgumentInvalid(f"Invalid initialTwin: {error.text}") from None
    return parts


def _own(collection: JsonObject) -> JsonObject:
    """Leave out what a TwinCollection of C# and Java writes beside its members."""
    noise = ("$version", "$metadata")
    return {name: value for name, value in collection.items() if name not in noise}
