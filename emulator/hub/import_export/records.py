"""What is kept of import and export jobs, and what a request for one asks for.

The rules are those of IoT Hub docs: import and export identities in bulk, of the swagger of the
service API (JobProperties), and of what was seen on a real hub.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from emulator.hub.core import limits, members
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    ManagedIdentityNotEnabled,
)
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso

# What blobs are called if the request doesn't say (swagger).
_DEVICES = "devices.txt"
_CONFIGURATIONS = "configurations.txt"


class TransferKey(NamedTuple):
    """Names one import or export job."""

    id: str


class TransferType(enum.Enum):
    """Which way the identities go."""

    EXPORT = "export"
    IMPORT = "import"


class TransferStatus(enum.Enum):
    """How far an import or export job is; a real hub has others, which none of these comes to."""

    ENQUEUED = "enqueued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Nothing more happens."""
        return self not in (TransferStatus.ENQUEUED, TransferStatus.RUNNING)


class Transfer(Struct, frozen=True):
    """One import or export job. Where its blobs are is not kept: that holds a secret.

    Args:
        progress: how much is done, in percent.
        failure_reason: why it failed as a whole.
    """

    key: TransferKey
    type: TransferType
    exclude_keys: bool
    started: datetime
    ended: datetime | None = None
    status: TransferStatus = TransferStatus.ENQUEUED
    progress: int = 0
    failure_reason: str | None = None

    def document(self) -> JsonObject:
        """Write it as services see it.

        The URI of the output container is empty, that of the input left out, and so is what there
        is nothing to say about (seen on a real hub).
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


class Order(Struct, frozen=True):
    """What a request for a job asks for.

    Args:
        input: the container that an import reads, the output's if the request names none.
        output: the container that is written.
        devices: the name of the blob that holds the identities.
        configurations: that of the configurations; None leaves them out.
        exclude_keys: whether an export is to hold no credentials.
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
            ManagedIdentityNotEnabled: the hub is to use an identity of its own, and has none.
        """
        body = members.document(body)
        kind = _type(body)
        _check_authentication(body)
        given_input = members.text(body, "inputBlobContainerUri")
        output = members.text(body, "outputBlobContainerUri")
        if kind is TransferType.IMPORT:
            if not given_input:
                raise ArgumentNull("inputBlobContainerUri is missing")
            # The SDK for C# says that the container serves both ends then.
            output = output or given_input
        if not output:
            raise ArgumentNull("outputBlobContainerUri is missing")
        end = "input" if kind is TransferType.IMPORT else "output"
        configurations = _blob_name(body, "configurationsBlobName", _CONFIGURATIONS)
        included = members.flag(body, "includeConfigurations")
        exclude_keys = members.flag(body, "excludeKeysInExport")
        return cls(
            type=kind,
            input=given_input or output,
            output=output,
            devices=_blob_name(body, f"{end}BlobName", _DEVICES),
            configurations=configurations if included else None,
            exclude_keys=exclude_keys and kind is TransferType.EXPORT,
        )


def _type(body: JsonObject) -> TransferType:
    given = members.text(body, "type")
    if not given:
        raise ArgumentNull("type is missing")
    for kind in TransferType:
        if given.lower() == kind.value:
            return kind
    raise ArgumentInvalid(f"type ({given}) must be export or import")


def _check_authentication(body: JsonObject) -> None:
    given = (members.text(body, "storageAuthenticationType") or "keyBased").lower()
    if given == "identitybased":
        raise ManagedIdentityNotEnabled(
            "The hub has no managed identity: with storageAuthenticationType keyBased, a SAS in "
            "the containers' URIs opens them"
        )
    if given != "keybased":
        raise ArgumentInvalid(f"storageAuthenticationType ({given}) is neither of the two")


def _blob_name(body: JsonObject, name: str, default: str) -> str:
    """Read the name of a blob (Azure Storage docs: naming blobs)."""
    given = members.text(body, name) or default
    parts = given.split("/")
    if (
        len(given) > limits.BLOB_NAME_LENGTH
        or not given.isprintable()
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ArgumentInvalid(f"{name} is not the name of a blob")
    return given
