"""Conditional headers (Azure Storage docs: specifying conditional headers)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from emulator.blobs.errors import ServiceError, invalid_header
from emulator.storage.blob_folder import BlobFile


def check_write(headers: Mapping[str, str], found: BlobFile | None) -> None:
    """Check the conditions of a request that writes a blob.

    Raises:
        ServiceError: a condition is not met.
    """
    if found is not None and headers.get("If-None-Match", "").strip() == "*":
        raise ServiceError("BlobAlreadyExists")
    if not _matches(headers, found) or _is_known(headers, found):
        raise ServiceError("ConditionNotMet")


def check_read(headers: Mapping[str, str], found: BlobFile) -> bool:
    """Check the conditions of a request that reads a blob.

    Returns:
        whether the client has it already: the answer is 304.

    Raises:
        ServiceError: a condition is not met.
    """
    if not _matches(headers, found):
        raise ServiceError("ConditionNotMet")
    return _is_known(headers, found)


def _matches(headers: Mapping[str, str], found: BlobFile | None) -> bool:
    """Return whether If-Match and If-Unmodified-Since are met."""
    if "If-Match" in headers and not _names(headers["If-Match"], found):
        return False
    since = _date(headers, "If-Unmodified-Since")
    return since is None or found is None or found.modified <= since


def _is_known(headers: Mapping[str, str], found: BlobFile | None) -> bool:
    """Return whether If-None-Match or If-Modified-Since is not met."""
    if "If-None-Match" in headers:
        return _names(headers["If-None-Match"], found)
    since = _date(headers, "If-Modified-Since")
    return since is not None and found is not None and found.modified <= since


def _names(etags: str, found: BlobFile | None) -> bool:
    if found is None:
        return False
    named = [each.strip().removeprefix("W/").strip('"') for each in etags.split(",")]
    return "*" in named or found.etag in named


def _date(headers: Mapping[str, str], name: str) -> datetime | None:
    if name not in headers:
        return None
    try:
        found = parsedate_to_datetime(headers[name])
    except (ValueError, OverflowError):
        raise invalid_header(name, headers[name]) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
