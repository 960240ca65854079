"""Uploads into a storage account, or into a storage emulator."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
from yarl import URL

from emulator.hub.core.clock import TimeSource
from emulator.hub.core.errors import InvalidStorageEndpointOrBlob, ServiceUnavailable
from emulator.hub.core.printable import printable
from emulator.hub.uploads.storage import Grant, StoredBlob
from emulator.storage.account import answered, error_code
from emulator.storage.blob_sas import CREATE, READ, WRITE, Blob, sign, sign_container
from emulator.storage.connection_string import StorageAccount
from emulator.storage.container import BlobError
from emulator.storage.upload_folder import CONTAINER

log = logging.getLogger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5, sock_read=10)
# For a request of our own.
_LIFETIME = timedelta(minutes=10)
_OK, _CREATED, _NOT_FOUND, _EXISTS = 200, 201, 404, 409


class AccountUploads:
    """The uploads of a hub in an account (see `UploadStorage`).

    The account has the time of the machine. So a token begins now, by that time, and lives as long
    as the hub says: the clock of the hub can be hours ahead.

    Args:
        account: the account.
        machine: the clock of the machine.
        bundle: the certificates to trust, PEM, beside those of SSL_CERT_FILE.
    """

    def __init__(self, account: StorageAccount, machine: TimeSource, bundle: Path) -> None:
        self._account = account
        self._machine = machine
        self._bundle = bundle
        self._trusted: ssl.SSLContext | None = None
        self._has_container = False
        self._preparing: asyncio.Task[None] | None = None

    def grant(self, blob_name: str, start: datetime, expires: datetime) -> Grant:
        """See `UploadStorage.grant`."""
        self.prepare()
        token = self._sign(blob_name, READ + WRITE, expires - start)
        return Grant(self._account.host, CONTAINER, token)

    async def find(self, blob_name: str) -> StoredBlob | None:
        """See `UploadStorage.find`.

        Raises:
            InvalidStorageEndpointOrBlob: the account refuses the hub.
            ServiceUnavailable: it can't be reached. The text says why, and has no secret.
        """
        path = f"{CONTAINER}/{quote(blob_name)}"
        try:
            url = self._url(path + self._sign(blob_name, READ, _LIFETIME))
            async with answered("HEAD", url, _TIMEOUT, ssl=self._context()) as answer:
                if answer.status == _NOT_FOUND:
                    return None
                if answer.status != _OK:
                    raise InvalidStorageEndpointOrBlob(
                        f"The storage refused the hub: it answered {error_code(answer)}"
                    )
                size = int(answer.headers["Content-Length"])
                modified = parsedate_to_datetime(answer.headers["Last-Modified"])
        except BlobError as error:
            raise ServiceUnavailable(str(error)) from None
        except (KeyError, ValueError, OverflowError):
            raise ServiceUnavailable("The answer of the storage is not one of a blob.") from None
        return StoredBlob(f"{self._account.scheme}://{self._account.host}/{path}", size, modified)

    def prepare(self) -> None:
        """Create the container if it is missing, in the background: `grant` can't wait for it."""
        if not self._has_container and (self._preparing is None or self._preparing.done()):
            self._preparing = asyncio.get_running_loop().create_task(self._create_container())

    async def stop(self) -> None:
        """End what runs in the background."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait((self._preparing,))

    async def _create_container(self) -> None:
        expires = self._machine.now() + _LIFETIME
        token = sign_container(self._account.name, self._account.key, CREATE, expires)
        try:
            url = self._url(f"{CONTAINER}{token}&restype=container")
            headers = {"Content-Length": "0"}
            async with answered(
                "PUT", url, _TIMEOUT, headers=headers, ssl=self._context()
            ) as answer:
                if answer.status not in (_CREATED, _EXISTS):
                    raise BlobError(f"The storage answered {error_code(answer)}.")
        except BlobError as error:
            log.warning(
                "Can't create the container %s for uploads in %s: %s",
                printable(CONTAINER),
                printable(self._account.host),
                printable(error),
            )
        else:
            self._has_container = True

    def _sign(self, blob_name: str, permissions: str, life: timedelta) -> str:
        blob = Blob(self._account.name, CONTAINER, blob_name)
        return sign(blob, self._account.key, permissions, self._machine.now() + life)

    def _url(self, path: str) -> URL:
        return URL(f"{self._account.scheme}://{self._account.host}/{path}", encoded=True)

    def _context(self) -> ssl.SSLContext:
        if self._trusted is None:
            self._trusted = ssl.create_default_context()
            self._trusted.load_verify_locations(self._bundle)
        return self._trusted
