"""A request to the blob service: its blob, its parameters and its body."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_response import StreamResponse

from emulator.blobs.errors import ServiceError, invalid_header, invalid_parameter
from emulator.blobs.headers import md5
from emulator.hub.core.printable import printable
from emulator.net.http_connection import HttpConnection, HttpRequest
from emulator.storage import blob_sas
from emulator.storage.blob_folder import BlobFolder, NewFile
from emulator.storage.blob_sas import SasError
from emulator.storage.upload_folder import FolderUploads

_T = TypeVar("_T")

# A client that sends less than this within the deadline of a request is too slow.
WRITE_BYTES = 256 * 1024
_CLIENT_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,1024}", re.ASCII)


class DisconnectedError(Exception):
    """The client left, or sent a body whose framing is broken."""


class BlobRequest(HttpRequest):
    """A request.

    Attributes:
        request_id: what the answer names it.
        api_version: the version of the REST API.
        container: the name of the container.
        blob: the name of the blob, decoded.
        permissions: what its token allows.
        uploads: where the blobs are.
    """

    api_version = blob_sas.VERSION
    container = blob = permissions = ""
    uploads: FolderUploads

    def begin(self, uploads: FolderUploads) -> None:
        """Parse the request, and verify its token, before anything is read or written.

        Raises:
            ServiceError: the request is not valid, or not authenticated.
        """
        self.uploads = uploads
        self._parse()
        self._authenticate()

    def complete(self, response: StreamResponse) -> None:
        """Add the headers that the service sends with every answer."""
        response.headers["Server"] = "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"
        response.headers.setdefault("x-ms-request-id", self.request_id)
        response.headers["x-ms-version"] = self.api_version
        sent = self.headers.get("x-ms-client-request-id", "")
        if _CLIENT_REQUEST_ID.fullmatch(sent):
            response.headers["x-ms-client-request-id"] = sent

    @property
    def request_id(self) -> str:
        """The id of the request in its answer."""
        if self._id is None:
            self._id = str(uuid.uuid4())
        return self._id

    _id: str | None = None

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the query; None if it is missing.

        Raises:
            ServiceError: it is there twice.
        """
        values = [value for each, value in self._parameters if each == name]
        if len(values) > 1:
            raise invalid_parameter(name, ", ".join(values), "The parameter is there twice.")
        return values[0] if values else None

    def require(self, *permissions: str) -> None:
        """Check that the token has one of these permissions.

        Raises:
            ServiceError
        """
        if not any(each in self.permissions for each in permissions):
            raise ServiceError("AuthorizationPermissionMismatch")

    async def work(self, function: Callable[[BlobFolder], _T]) -> _T:
        """Work on the blobs in a thread: see `UploadFolder.run`."""
        return await self.uploads.folder.run(function)

    def _parse(self) -> None:
        version = self.headers.get("x-ms-version")
        if version is not None:
            if not blob_sas.is_version(version):
                raise invalid_header("x-ms-version", version)
            self.api_version = version
        path = self.rel_url.raw_path
        try:
            self._parameters = blob_sas.parameters(self.rel_url.raw_query_string)
            decoded = blob_sas.decoded_path(path)
        except ValueError:
            raise ServiceError("InvalidUri") from None
        # An encoded slash is a part of a blob's name, and never ends the name of a container.
        self.container = path[1:].partition("/")[0]
        self.blob = decoded[len(self.container) + 2 :]

    def _authenticate(self) -> None:
        query = self.rel_url.raw_query_string
        if not any(name == "sig" for name, _ in self._parameters):
            if "Authorization" in self.headers:
                detail = "The emulator accepts the SAS tokens of file uploads alone."
                raise ServiceError("AuthenticationFailed", {"AuthenticationErrorDetail": detail})
            raise ServiceError(
                "NoAuthenticationInformation", headers={"WWW-Authenticate": "Bearer"}
            )
        try:
            fields = self.uploads.verify(query, self.container, self.blob)
        except SasError as error:
            detail = str(error)
            raise ServiceError(
                "AuthenticationFailed", {"AuthenticationErrorDetail": detail}
            ) from None
        self.permissions = fields["sp"]
        if "x-ms-version" not in self.headers:
            self.api_version = fields["sv"]

    # --- the body

    def length(self, most: int) -> int:
        """Return the length of the body.

        Raises:
            ServiceError: it is missing, or more than `most`.
        """
        length = self.content_length
        if length is None or "Transfer-Encoding" in self.headers:
            raise ServiceError("MissingContentLengthHeader")
        if length > most:
            raise ServiceError("RequestBodyTooLarge")
        return length

    @asynccontextmanager
    async def received(self) -> AsyncIterator[NewFile]:
        """Receive the body into a file that no blob has yet; it is deleted at the end.

        The caller has checked its `length`.

        Raises:
            ServiceError: the MD5 of the body is another one.
            DisconnectedError: the client left.
        """
        expected = self.headers.get("Content-MD5")
        digest = None if expected is None else md5(expected)
        await self.invite_body()
        new = await self.work(BlobFolder.create)
        try:
            async for data in self.chunks():
                await self.work(lambda _, data=data: new.write(data))  # type: ignore[misc]
            if digest is not None and digest != new.md5:
                raise ServiceError("Md5Mismatch")
            yield new
        finally:
            await self.work(lambda _: new.discard())

    async def body(self, most: int) -> bytes:
        """Return a small body.

        Raises:
            ServiceError: see `length`.
            DisconnectedError: the client left.
        """
        self.length(most)
        await self.invite_body()
        found = bytearray()
        async for data in self.chunks():
            found += data
        return bytes(found)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Receive the body in parts; each has the time of the deadline.

        Raises:
            DisconnectedError
        """
        collected = bytearray()
        try:
            async for data in self.content.iter_any():
                collected += data
                if len(collected) >= WRITE_BYTES:
                    yield bytes(collected)
                    collected.clear()
                    cast("HttpConnection", self.protocol).renew_deadline()
        except (RequestPayloadError, ConnectionError) as error:
            raise DisconnectedError(printable(error)) from None
        if collected:
            yield bytes(collected)
