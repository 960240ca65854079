"""Headers of a blob: what a client says of it when it writes, and what a reader gets."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from email.utils import format_datetime

from emulator.blobs.errors import ServiceError, invalid_header
from emulator.hub.core import limits
from emulator.storage.blob_folder import BlobFile, Headers

_MD5_BYTES = 16
_METADATA = "x-ms-meta-"
# A C# identifier, as far as a header can have one (Azure Storage docs: naming metadata).
_METADATA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_DEFAULT_TYPE = "application/octet-stream"
# Headers with the prefix `x-ms-blob-`. Put Blob also accepts those of `_PLAIN` without it.
_PLAIN = ("content-type", "content-encoding", "content-language", "cache-control")
_NAMES = (*_PLAIN, "content-disposition", "content-md5")


def of_blob(sent: Mapping[str, str], *, whole: bool) -> Headers:
    """Return what a request says of the blob that it writes.

    Args:
        sent: its headers.
        whole: whether its body is the blob, and not a block list.

    Raises:
        ServiceError: a header is invalid.
    """
    http = {"content-type": _DEFAULT_TYPE}
    for name in _NAMES:
        value = sent.get(f"x-ms-blob-{name}")
        if value is None and whole and name in _PLAIN:
            value = sent.get(name)
        if value:
            http[name] = _checked(name, value)
    if "content-md5" in http:
        md5(http["content-md5"])
    return Headers(http, _metadata(sent))


def md5(text: str) -> bytes:
    """Decode an MD5.

    Raises:
        ServiceError: it is not one.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != _MD5_BYTES:
        raise ServiceError("InvalidMd5")
    return decoded


def md5_of(data: bytes) -> bytes:
    """Return the MD5 of a small body."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def with_md5(said: Headers, content_md5: str) -> Headers:
    """Return headers with the MD5 of the content, which the client has not said."""
    return Headers({**said.http, "content-md5": content_md5}, said.metadata)


def for_reader(found: BlobFile) -> dict[str, str]:
    """Return the headers of Get Blob and Get Blob Properties, except those of a range."""
    http = {"content-type": _DEFAULT_TYPE, **found.headers.http}
    committed = {"x-ms-blob-committed-block-count": str(len(found.blocks))} if found.blocks else {}
    return {
        **{name.title().replace("Md5", "MD5"): value for name, value in http.items()},
        **{f"{_METADATA}{name}": value for name, value in found.headers.metadata.items()},
        **committed,
        **version_of(found),
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-creation-time": format_datetime(found.created, usegmt=True),
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
        "x-ms-server-encrypted": "true",
    }


def version_of(found: BlobFile) -> dict[str, str]:
    """Return the headers that name the present state of a blob."""
    modified = format_datetime(found.modified, usegmt=True)
    return {"ETag": f'"{found.etag}"', "Last-Modified": modified}


def _metadata(sent: Mapping[str, str]) -> dict[str, str]:
    found = {
        name[len(_METADATA) :]: value
        for name, value in sent.items()
        if name.lower().startswith(_METADATA)
    }
    for name, value in found.items():
        if not _METADATA_NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ServiceError("InvalidMetadata")
    if sum(len(name) + len(value) for name, value in found.items()) > limits.UPLOAD_METADATA_BYTES:
        raise ServiceError("MetadataTooLarge")
    return found


def _checked(name: str, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise invalid_header(name, value)
    return value
