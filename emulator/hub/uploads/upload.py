"""An upload that a device has started, and the requests about it: values and their rules."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from msgspec import Struct

from emulator.hub.core import limits, members
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    InvalidFileUploadCompletionStatus,
)
from emulator.hub.core.store import Key
from emulator.hub.feed import Change
from emulator.hub.links.link import Admission
from emulator.hub.uploads import correlation
from emulator.hub.uploads.storage import StoredBlob

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_START = members.Form("blobName")
_REPORT = members.Form("correlationId", "isSuccess", "statusCode", "statusDescription")


class Upload(Struct, frozen=True):
    """An active upload: a device has started it, and has not reported its end.

    Args:
        device_id: the device.
        correlation_id: names the upload in the device's report.
        generation_id: of the device: a device that was deleted and created again has others.
        name: the name of the file.
        expires: when the permission to write the blob ends. The upload is not active then.
    """

    device_id: str
    correlation_id: str
    generation_id: str
    name: str
    expires: datetime

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return self.device_id, self.correlation_id

    @property
    def blob_name(self) -> str:
        """The name of the blob in the storage."""
        return f"{self.device_id}/{self.name}"


class Report(Struct, frozen=True):
    """What a device reports at the end of an upload.

    Args:
        correlation_id: names the upload.
        is_success: whether the file is in the storage.
        status_code: of the storage's answer, or any other number (SDKs); None if it is missing.
        status_description: any text; None if it is missing.
    """

    correlation_id: str
    is_success: bool
    status_code: int | None = None
    status_description: str | None = None


class UploadStarted(Change, frozen=True):
    """A device has started an upload."""

    upload: Upload


class UploadEnded(Change, frozen=True):
    """A device has reported the end of an upload; `blob` is the file, None after a failure."""

    upload: Upload
    report: Report
    blob: StoredBlob | None


def start(device: Admission, body: object, now: datetime) -> Upload:
    """Return the upload that a request asks for: `{"blobName"}`.

    Raises:
        DeserializationError, ArgumentNull, ArgumentInvalid
    """
    device_id = device.key.device_id
    name = members.text(members.document(body, _START), "blobName")
    if not name:
        raise ArgumentNull("blobName is missing or empty. Use the name of the file")
    _check_name(device_id, name)
    return Upload(
        device_id,
        correlation.new_id(name, now),
        device.generation_id,
        name,
        now + timedelta(seconds=limits.UPLOAD_TIME_TO_LIVE),
    )


def read_report(body: object, correlation_id: str | None) -> Report:
    """Return the report in a request: `{"correlationId", "isSuccess", "statusCode",
    "statusDescription"}`.

    Args:
        body: the request. The success is mandatory, the status is optional (SDK for C#).
        correlation_id: the id in the path, which counts then; None if it is in the body.

    Raises:
        DeserializationError, ArgumentNull, ArgumentInvalid
        InvalidFileUploadCompletionStatus: it says neither success nor failure.
    """
    document = members.document(body, _REPORT)
    correlation_id = correlation_id or members.text(document, "correlationId")
    if not correlation_id:
        raise ArgumentNull("correlationId is missing. Use that of the answer to the start")
    if document.get("isSuccess") is None:
        raise InvalidFileUploadCompletionStatus("isSuccess is missing. Use true or false")
    status = document.get("statusCode")
    if status is not None and type(status) is not int:
        raise ArgumentInvalid("statusCode is not an integer")
    description = members.text(document, "statusDescription")
    return Report(correlation_id, members.flag(document, "isSuccess"), status, description)


def _check_name(device_id: str, name: str) -> None:
    """Check the name of a file, as a part of the name of a blob (Azure Storage docs: names)."""
    length = len(device_id) + 1 + len(name)
    if length > limits.BLOB_NAME_LENGTH:
        raise ArgumentInvalid(
            f"blobName is too long: with the device id and a slash it has {length} characters. "
            f"{limits.BLOB_NAME_LENGTH} are allowed"
        )
    segments = name.split("/")
    if len(segments) + 1 > limits.BLOB_NAME_SEGMENTS:
        raise ArgumentInvalid(
            f"blobName has too many segments: with the device id {len(segments) + 1}. "
            f"{limits.BLOB_NAME_SEGMENTS} are allowed"
        )
    if _CONTROL.search(name):
        raise ArgumentInvalid("blobName has a control character")
    # Clients remove these segments from a URL: no client can write such a blob (RFC 3986, 5.2.4).
    if not {".", ".."}.isdisjoint(segments):
        raise ArgumentInvalid("blobName has a segment . or .., which is not allowed")
