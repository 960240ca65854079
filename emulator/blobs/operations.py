"""What a request does to a blob (Azure Storage docs: operations on block blobs)."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import BinaryIO

from aiohttp.web_response import Response, StreamResponse

from emulator.blobs import block_lists, conditions, headers
from emulator.blobs.errors import ServiceError, invalid_header, invalid_parameter, not_implemented
from emulator.blobs.requests import WRITE_BYTES, BlobRequest
from emulator.hub.core import limits
from emulator.hub.core.printable import printable
from emulator.storage.blob_folder import (
    BlobFile,
    InvalidBlockLengthError,
    InvalidBlockListError,
    TooManyBlocksError,
)
from emulator.storage.blob_sas import CREATE, DELETE, READ, WRITE

log = logging.getLogger(__name__)

_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{1,19})?", re.ASCII)
_ENCRYPTED = {"x-ms-request-server-encrypted": "true"}
# The headers of operations that the emulator does not have.
_UNKNOWN_HEADERS = ("x-ms-copy-source", "x-ms-structured-body", "x-ms-encryption-key")
# The operations of the real service on one blob that the emulator does not have.
_OTHER_OPERATIONS = frozenset(
    (
        *(
            "acl",
            "appendblock",
            "copy",
            "expiry",
            "immutabilityPolicies",
            "incrementalcopy",
            "lease",
        ),
        *("legalhold", "list", "metadata", "page", "pagelist", "properties", "query", "seal"),
        *("snapshot", "tags", "tier", "undelete"),
    )
)


async def answer(request: BlobRequest) -> StreamResponse:
    """Carry out a request, which is authenticated.

    Raises:
        ServiceError, DisconnectedError, OSError
    """
    what = request.parameter("comp")
    verbs = _OPERATIONS.get(what)
    if verbs is None:
        if what in _OTHER_OPERATIONS:
            raise not_implemented(f"{request.method} comp={what}")
        raise invalid_parameter("comp", what or "", "Use block or blocklist, or leave it out.")
    if (operation := verbs.get(request.method)) is None:
        raise ServiceError("UnsupportedHttpVerb", headers={"Allow": ", ".join(verbs)})
    for name in ("restype", "snapshot", "versionid"):
        if (value := request.parameter(name)) is not None:
            raise not_implemented(f"{request.method} {name}={value}")
    for name in _UNKNOWN_HEADERS:
        if name in request.headers:
            raise not_implemented(f"{request.method} with the header {name}")
    return await operation(request)


# --- to write


async def _put_blob(request: BlobRequest) -> StreamResponse:
    request.require(WRITE, CREATE)
    kind = request.headers.get("x-ms-blob-type")
    if kind is None:
        raise ServiceError("MissingRequiredHeader", {"HeaderName": "x-ms-blob-type"})
    if kind in ("PageBlob", "AppendBlob"):
        raise not_implemented(f"Put Blob of a {kind}")
    if kind != "BlockBlob":
        raise invalid_header("x-ms-blob-type", kind)
    said = headers.of_blob(request.headers, whole=True)
    check, name, now = _check_write(request), request.blob, request.uploads.clock.now
    request.length(limits.UPLOAD_BLOB_BYTES)
    # Before the body arrives, and once more when it is complete.
    check(await request.work(lambda blobs: blobs.find(name)))
    async with request.received() as new:
        content_md5 = base64.b64encode(new.md5).decode()
        if "content-md5" not in said.http:
            said = headers.with_md5(said, content_md5)
        written = await request.work(lambda blobs: blobs.put(name, new, said, now(), check))
    answered = {**headers.version_of(written), "Content-MD5": content_md5, **_ENCRYPTED}
    return Response(status=201, headers=answered)


async def _put_block(request: BlobRequest) -> StreamResponse:
    request.require(WRITE)
    block_id = block_lists.block_id(_required(request, "blockid"))
    if not request.length(limits.UPLOAD_BLOCK_BYTES):
        raise invalid_header("Content-Length", "0")
    name, now = request.blob, request.uploads.clock.now
    async with request.received() as new:
        try:
            await request.work(lambda blobs: blobs.stage(name, block_id, new, now()))
        except InvalidBlockLengthError:
            raise ServiceError("InvalidBlobOrBlock") from None
        except TooManyBlocksError:
            raise ServiceError("BlockCountExceedsLimit") from None
        request.uploads.sweep_later()
        content_md5 = base64.b64encode(new.md5).decode()
    return Response(status=201, headers={"Content-MD5": content_md5, **_ENCRYPTED})


async def _put_block_list(request: BlobRequest) -> StreamResponse:
    request.require(WRITE)
    said = headers.of_blob(request.headers, whole=False)
    check, name, now = _check_write(request), request.blob, request.uploads.clock.now()
    document = await request.body(limits.UPLOAD_BLOCK_LIST_BYTES)
    expected = request.headers.get("Content-MD5")
    if expected is not None and headers.md5(expected) != headers.md5_of(document):
        raise ServiceError("Md5Mismatch")
    try:
        written = await request.work(
            lambda blobs: blobs.commit(name, block_lists.parse(document), said, now, check)
        )
    except InvalidBlockListError:
        raise ServiceError("InvalidBlockList") from None
    return Response(status=201, headers={**headers.version_of(written), **_ENCRYPTED})


async def _delete(request: BlobRequest) -> StreamResponse:
    request.require(DELETE)

    def check(found: BlobFile | None) -> None:
        if found is None:
            raise ServiceError("BlobNotFound")
        conditions.check_write(request.headers, found)

    name = request.blob
    await request.work(lambda blobs: blobs.delete(name, check))
    return Response(status=202, headers={"x-ms-delete-type-permanent": "true"})


def _check_write(request: BlobRequest) -> Callable[[BlobFile | None], None]:
    may_replace = WRITE in request.permissions

    def check(found: BlobFile | None) -> None:
        conditions.check_write(request.headers, found)
        if found is not None and not may_replace:
            raise ServiceError("AuthorizationPermissionMismatch")

    return check


# --- to read


async def _get_blob(request: BlobRequest) -> StreamResponse:
    request.require(READ)
    name = request.blob
    opened = await request.work(lambda blobs: blobs.open(name))
    if opened is None:
        raise ServiceError("BlobNotFound")
    found, file = opened
    try:
        return await _answer_with(request, found, file)
    finally:
        await request.work(lambda _: file.close())


async def _answer_with(request: BlobRequest, found: BlobFile, file: BinaryIO) -> StreamResponse:
    if conditions.check_read(request.headers, found):
        return Response(status=304, headers=headers.version_of(found))
    asked = request.headers.get("x-ms-range") or request.headers.get("Range")
    begin, end, is_part = _range(asked, found.size)
    answered = headers.for_reader(found)
    if is_part:
        answered["Content-Range"] = f"bytes {begin}-{end - 1}/{found.size}"
        if whole := answered.pop("Content-MD5", None):
            answered["x-ms-blob-content-md5"] = whole
    response = StreamResponse(status=206 if is_part else 200, headers=answered)
    response.content_length = end - begin
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    try:
        await request.work(lambda _: file.seek(begin))
        await response.prepare(request)
        await _send(request, response, file, end - begin)
    except OSError as error:  # of the file or of the connection; and TimeoutError
        if not response.prepared or request.transport is None:
            raise
        # Half of an answer is sent: only the end of the connection can say that it is not whole.
        reason = error or "the client is too slow"
        log.info("Reading %r ended early: %s", request.blob, printable(reason))
        request.transport.abort()
    return response


async def _send(request: BlobRequest, response: StreamResponse, file: BinaryIO, count: int) -> None:
    """Send bytes of a file.

    Raises:
        OSError: the file became shorter, the client left, or it does not read.
    """
    while count:
        data = await _read(request, file, min(WRITE_BYTES, count))
        if not data:
            raise OSError("the file became shorter")
        async with asyncio.timeout(limits.HTTP_REQUEST_TIMEOUT):
            await response.write(data)
        count -= len(data)
    await response.write_eof()


async def _read(request: BlobRequest, file: BinaryIO, size: int) -> bytes:
    return await request.work(lambda _: file.read(size))


async def _get_block_list(request: BlobRequest) -> StreamResponse:
    request.require(READ)
    kind = request.parameter("blocklisttype") or "committed"
    if kind not in ("committed", "uncommitted", "all"):
        raise invalid_parameter("blocklisttype", kind, "Use committed, uncommitted or all.")
    name = request.blob
    found = await request.work(lambda blobs: blobs.find(name))
    uncommitted = await request.work(lambda blobs: blobs.uncommitted(name))
    if found is None and not uncommitted:
        raise ServiceError("BlobNotFound")
    committed = () if found is None else found.blocks
    body = await request.work(
        lambda _: block_lists.write(
            None if kind == "uncommitted" else committed,
            None if kind == "committed" else uncommitted,
        )
    )
    answered = {"Content-Type": "application/xml"}
    if found is not None:
        answered |= headers.version_of(found)
        answered["x-ms-blob-content-length"] = str(found.size)
    return Response(body=body, headers=answered)


def _range(asked: str | None, size: int) -> tuple[int, int, bool]:
    """Return the begin and the end of a range, and whether it is a part of the blob."""
    match = None if asked is None else _RANGE.fullmatch(asked.strip())
    if match is None:
        return 0, size, False  # the service ignores a range of another form
    begin = int(match[1])
    end = size if match[2] is None else min(int(match[2]) + 1, size)
    if begin >= size or end <= begin:
        raise ServiceError("InvalidRange", headers={"Content-Range": f"bytes */{size}"})
    return begin, end, True


def _required(request: BlobRequest, name: str) -> str:
    value = request.parameter(name)
    if value is None:
        raise ServiceError("MissingRequiredQueryParameter", {"QueryParameterName": name})
    return value


_Operation = Callable[[BlobRequest], Awaitable[StreamResponse]]
_OPERATIONS: Mapping[str | None, Mapping[str, _Operation]] = {
    None: {"GET": _get_blob, "HEAD": _get_blob, "PUT": _put_blob, "DELETE": _delete},
    "block": {"PUT": _put_block},
    "blocklist": {"GET": _get_block_list, "PUT": _put_block_list},
}
