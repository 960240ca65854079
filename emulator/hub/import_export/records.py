"""The records of import and export jobs, and their requests.

The rules are those of IoT Hub docs: import and export identities in bulk, of the swagger of the
service API (JobProperties), and of what was seen on a real hub.
"""

from __future__ import annotations

import enum
from datetime import datetime

from msgspec import Struct

from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid, ArgumentNull, ManagedIdentityNotEnabled
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso
from emulator.hub.jobs.records import JobKey, JobStatus

# The names of blobs if the request has no names (swagger).
_DEVICES = "devices.txt"
_CONFIGURATIONS = "configurations.txt"


class TransferType(enum.Enum):
    """The direction of a job."""

    EXPORT = "export"
    IMPORT = "import"


class Transfer(Struct, frozen=True):
    """One import or export job. The URIs of its containers are not stored: they hold secrets.

    Args:
        progress: the progress in percent.
        failure_reason: why the whole job failed.
    """

    key: JobKey
    type: TransferType
    exclude_keys: bool
    started: datetime
    ended: datetime | None = None
    status: JobStatus = JobStatus.ENQUEUED
    progress: int = 0
    failure_reason: str | None = None

    def document(self) -> JsonObject:
        """Return the job as services see it.

        The URI of the output container is empty; the URI of the input, and members without a value,
        are left out (seen on a real hub).
        """
        document = {
            "jobId": self.key.id,
            "startTimeUtc": iso(self.started),
            "endTimeUtc": iso(self.ended) if self.ended else None,
            "type": self.type.value,
            "status": self.status.value,
            "progress": self.progress,
            "outputBlobContainerUri": "",
            "excludeKeysInExport": self.exclude_keys,
            "failureReason": self.failure_reason,
            "useSecondaryStorageAsSource": False,
        }
        return {name: value for name, value in document.items() if value is not None}


_ORDER = members.Form(
    *("type", "inputBlobContainerUri", "outputBlobContainerUri", "inputBlobName", "outputBlobName"),
    *("excludeKeysInExport", "includeConfigurations", "configurationsBlobName"),
    "storageAuthenticationType",
)


class Order(Struct, frozen=True):
    """The request for a job.

    Args:
        input: the container that an import reads; by default the output container.
        output: the container that the job writes.
        devices: the name of the blob of identities.
        configurations: the name of the blob of configurations; None leaves them out.
        exclude_keys: whether an export leaves out credentials.
    """

    type: TransferType
    input: str
    output: str
    devices: str
    configurations: str | None
    exclude_keys: bool

    def __repr__(self) -> str:
        # The URIs of containers have signatures in them.
        return f"{type(self).__name__}(type={self.type!r}, devices={self.devices!r})"

    @classmethod
    def parse(cls, body: object) -> Order:
        """Read a request: `{"type", "inputBlobContainerUri", "outputBlobContainerUri",
        "inputBlobName", "outputBlobName", "excludeKeysInExport", "includeConfigurations",
        "configurationsBlobName", "storageAuthenticationType"}`.

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid
            ManagedIdentityNotEnabled: the request needs a managed identity of the hub.
        """
        body = members.document(body, _ORDER)
        kind = _type(body)
        _check_authentication(body)
        source = members.text(body, "inputBlobContainerUri")
        target = members.text(body, "outputBlobContainerUri")
        end, container = "output", target
        if kind is TransferType.IMPORT:
            end, container = "input", source
        if not container:
            raise ArgumentNull(f"{end}BlobContainerUri is missing")
        configurations = _blob_name(body, "configurationsBlobName", _CONFIGURATIONS)
        included = members.flag(body, "includeConfigurations")
        exclude_keys = members.flag(body, "excludeKeysInExport")
        return cls(
            type=kind,
            # The SDK for C# documents that an import uses its container for both.
            input=source or container,
            output=target or container,
            devices=_blob_name(body, f"{end}BlobName", _DEVICES),
            configurations=configurations if included else None,
            exclude_keys=exclude_keys and kind is TransferType.EXPORT,
        )


def _type(body: JsonObject) -> TransferType:
    given = members.text(body, "type")
    if not given:
        raise ArgumentNull("type is missing")
    try:
        return TransferType(given.lower())
    except ValueError:
        raise ArgumentInvalid(f"type ({given}) must be export or import") from None


def _check_authentication(body: JsonObject) -> None:
    given = (members.text(body, "storageAuthenticationType") or "keyBased").lower()
    if given == "identitybased":
        raise ManagedIdentityNotEnabled(
            "The hub has no managed identity. Use storageAuthenticationType keyBased, and a SAS in "
            "the URIs of the containers"
        )
    if given != "keybased":
        raise ArgumentInvalid(f"Unknown storageAuthenticationType: {given}")


def _blob_name(body: JsonObject, name: str, default: str) -> str:
    """Return the name of a blob (Azure Storage docs: naming blobs)."""
    given = members.text(body, name) or default
    named = not any(part in ("", ".", "..") for part in given.split("/"))
    if not (named and given.isprintable() and len(given) <= limits.BLOB_NAME_LENGTH):
        raise ArgumentInvalid(f"{name} is not a valid name of a blob")
    return given
