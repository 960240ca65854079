"""Registrations: what became of a device that registered (DPS docs: registration state)."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from msgspec import Struct

from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Key
from emulator.hub.core.times import iso
from emulator.hub.feed import ServiceChange

ASSIGNING, ASSIGNED, FAILED, DISABLED = "assigning", "assigned", "failed", "disabled"

# How a device came to its hub (DPS docs: registration state).
INITIAL = "initialAssignment"
MIGRATED = "deviceDataMigrated"
RESET = "deviceDataReset"


class RegistrationChanged(ServiceChange, frozen=True):
    """A device was assigned or refused, or its registration was deleted."""


class Registration(Struct, frozen=True):
    """The registration of a device, once its assignment has ended.

    Args:
        id: the registration id as in the enrollment; of a group, as the device wrote it first.
        operation_id: the id of its last operation.
        status: assigned, failed or disabled. A registration that is not assigned any more keeps
            its hub for the next time, and does not show it.
        etag: changes with each write.
        created: when the device registered first.
        updated: when its assignment ended last.
        attestation: the type of its proof.
        group_id: the group that it belongs to; None if it has an enrollment of its own.
        hub: the host name of its hub; None if it has none.
        device_id: its id in this hub.
        substatus: how it came to its hub.
        error_code: the code of the error that ended a failed assignment.
        error_message: its text.
        payload: what the webhook of its enrollment sends to it.
        issued: the certificate that was issued to it and those above it, DER in base64.
        sealed: its key for the hub, sealed for its TPM, in base64; None if it has no TPM.
    """

    id: str
    operation_id: str
    status: str
    etag: str
    created: datetime
    updated: datetime
    attestation: str
    group_id: str | None = None
    hub: str | None = None
    device_id: str | None = None
    substatus: str | None = None
    error_code: int | None = None
    error_message: str | None = None
    payload: Any = None
    issued: tuple[str, ...] = ()
    sealed: str | None = None

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return key(self.id)

    @property
    def tag(self) -> str:
        """The etag on the wire: base64 of a quoted text (seen on the service)."""
        return base64.b64encode(f'"{self.etag}"'.encode()).decode()

    def document(self, *, for_device: bool = False) -> JsonObject:
        """Return it for a service or for its device.

        The device always reads that this is its first assignment (azure-iot-cli-extension tests).
        """
        is_assigned = self.status == ASSIGNED
        substatus = INITIAL if for_device else self.substatus
        values = {
            # An answer to a device with a certificate has this member (DPS docs: HTTPS).
            "tpm": {"authenticationKey": self.sealed} if for_device and self.sealed else None,
            "x509": {} if for_device and self.attestation == "x509" else None,
            "registrationId": self.id,
            "createdDateTimeUtc": iso(self.created),
            "assignedHub": self.hub if is_assigned else None,
            "deviceId": self.device_id if is_assigned else None,
            "status": self.status,
            "substatus": substatus if is_assigned else None,
            "errorCode": self.error_code,
            "errorMessage": self.error_message,
            "lastUpdatedDateTimeUtc": iso(self.updated),
            "etag": self.tag,
            "payload": self.payload,
            "issuedCertificateChain": list(self.issued) or None if for_device else None,
        }
        return {name: value for name, value in values.items() if value is not None}


def key(registration_id: str) -> Key:
    """Return the key of a registration in a store: letter case does not matter."""
    return (registration_id.lower(),)
