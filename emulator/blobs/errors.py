"""Errors as Azure Storage sends them (Azure Storage docs: Blob service error codes)."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from datetime import datetime
from xml.sax.saxutils import escape

# The codes, with the status and the text of each.
_TEXTS: Mapping[str, tuple[int, str]] = {
    "AuthenticationFailed": (
        403,
        "Server failed to authenticate the request. Make sure the value of Authorization header is "
        "formed correctly including the signature.",
    ),
    "NoAuthenticationInformation": (
        401,
        "Server failed to authenticate the request. Please refer to the information in the "
        "www-authenticate header.",
    ),
    "AuthorizationPermissionMismatch": (
        403,
        "This request is not authorized to perform this operation using this permission.",
    ),
    "BlobAlreadyExists": (409, "The specified blob already exists."),
    "BlobNotFound": (404, "The specified blob does not exist."),
    "BlockCountExceedsLimit": (
        409,
        "The uncommitted block count cannot exceed the maximum limit of 100,000 blocks.",
    ),
    "BlockListTooLong": (400, "The block list may not contain more than 50,000 blocks."),
    "ConditionNotMet": (
        412,
        "The condition specified using HTTP conditional header(s) is not met.",
    ),
    "InternalError": (
        500,
        "The server encountered an internal error. Please retry the request.",
    ),
    "InvalidBlobOrBlock": (400, "The specified blob or block content is invalid."),
    "InvalidBlockList": (400, "The specified block list is invalid."),
    "InvalidHeaderValue": (
        400,
        "The value for one of the HTTP headers is not in the correct format.",
    ),
    "InvalidInput": (400, "One of the request inputs is not valid."),
    "InvalidMd5": (
        400,
        "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and "
        "base64-encoded.",
    ),
    "InvalidMetadata": (
        400,
        "The metadata specified is invalid. It has characters that are not permitted.",
    ),
    "InvalidQueryParameterValue": (
        400,
        "Value for one of the query parameters specified in the request URI is invalid.",
    ),
    "InvalidRange": (
        416,
        "The range specified is invalid for the current size of the resource.",
    ),
    "InvalidUri": (400, "The requested URI does not represent any resource on the server."),
    "InvalidXmlDocument": (400, "XML specified is not syntactically valid."),
    "Md5Mismatch": (
        400,
        "The MD5 value specified in the request did not match with the MD5 value calculated by the "
        "server.",
    ),
    "MetadataTooLarge": (
        400,
        "The metadata specified exceeds the maximum permissible limit (8KB).",
    ),
    "MissingContentLengthHeader": (411, "Content-Length HTTP header is mandatory."),
    "MissingRequiredHeader": (
        400,
        "An HTTP header that's mandatory for this request is not specified.",
    ),
    "MissingRequiredQueryParameter": (
        400,
        "A query parameter that's mandatory for this request is not specified.",
    ),
    "NotImplemented": (501, "The emulator does not implement this operation of Azure Storage."),
    "RequestBodyTooLarge": (
        413,
        "The request body is too large and exceeds the maximum permissible limit.",
    ),
    "UnsupportedHttpVerb": (405, "The resource doesn't support specified Http Verb."),
    # Two of our own: a real account is never full. SDKs retry 500 and 503, which would hide the
    # reason for minutes. Only the SDK for Python retries 507.
    "InsufficientStorage": (
        507,
        "The disk of the emulator is full. Free disk space, and upload the file again.",
    ),
    "FolderNotWritable": (
        507,
        "The emulator is not allowed to write into its folder of uploads. Its log names the file.",
    ),
}

_DISK_IS_FULL = frozenset((errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)))
_NOT_WRITABLE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
# What no XML document can have (XML 1.0, section 2.2).
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class ServiceError(Exception):
    """An error that the service sends.

    Args:
        code: its code, in the table.
        details: more elements of its document: `{"HeaderName": "x-ms-blob-type"}`.
        headers: more headers of its answer.
    """

    def __init__(
        self,
        code: str,
        details: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code = code
        self.status, self.text = _TEXTS[code]
        self.details = details or {}
        self.headers = headers or {}
        super().__init__(f"{code} {dict(self.details)}" if details else code)

    def document(self, request_id: str, now: datetime) -> bytes:
        """Write the error as XML."""
        text = f"{self.text}\nRequestId:{request_id}\nTime:{now:%Y-%m-%dT%H:%M:%S.%f}0Z"
        elements = {"Code": self.code, "Message": text, **self.details}
        body = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in elements.items())
        return f'<?xml version="1.0" encoding="utf-8"?><Error>{body}</Error>'.encode()


def of_system(error: OSError) -> ServiceError:
    """Return the failure for an error of the system, while it works on files."""
    if error.errno in _DISK_IS_FULL:
        return ServiceError("InsufficientStorage")
    return ServiceError("FolderNotWritable" if error.errno in _NOT_WRITABLE else "InternalError")


def invalid_header(name: str, value: str) -> ServiceError:
    """Return the failure for the value of a header."""
    return ServiceError("InvalidHeaderValue", {"HeaderName": name, "HeaderValue": value})


def invalid_parameter(name: str, value: str, reason: str) -> ServiceError:
    """Return the failure for the value of a parameter in the query."""
    return ServiceError(
        "InvalidQueryParameterValue",
        {"QueryParameterName": name, "QueryParameterValue": value, "Reason": reason},
    )


def not_implemented(what: str) -> ServiceError:
    """Return the failure for what the real service has and the emulator does not."""
    return ServiceError("NotImplemented", {"Operation": what})


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("?", value))
