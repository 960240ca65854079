"""The storage of import and export jobs: containers in a folder, or in storage accounts.

A caller with the right RegistryWrite chooses the container. So a folder must stand in the folder
that the user has named, and only hosts that the user has allowed are called.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import aiohttp

from emulator.hub.core.errors import BlobContainerValidationError
from emulator.storage.account import CONTAINER_URL, PORTS, AccountContainer, Address, addresses
from emulator.storage.container import BlobError, Container
from emulator.storage.folder import FOLDER_URI, FolderContainer, checked_name, real_folder

_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=10)


class Storage:
    """The containers that import and export jobs can use (see `Blobs` in `hub.import_export`).

    Args:
        folder: the folder that contains the containers, `file:///NAME`; None without folders.
        hosts: the storage accounts and emulators that may be called: `host`, for the default ports
            of HTTP and HTTPS, or `host:port`.
        timeout: how long a request to them may take.

    Raises:
        StorageError: the folder does not exist, or a host is invalid.
    """

    def __init__(
        self, folder: Path | None, hosts: Iterable[str], timeout: aiohttp.ClientTimeout = _TIMEOUT
    ) -> None:
        self._folder = None if folder is None else real_folder(folder)
        self._hosts = frozenset(address for host in hosts for address in addresses(host))
        self._timeout = timeout
        # One name for all checks: a container whose blobs can't be deleted keeps only one of them.
        self._probe = f"iothub-check-{secrets.token_hex(8)}"

    async def check(self, container: str) -> None:
        """Write a blob to the container and delete it again: a hub must be able to do both.

        Raises:
            BlobContainerValidationError: the text begins as a real hub's text.
        """
        with _refusal("Unauthorized to write to output blob container. "):
            found = self._find(container)
            await found.write(self._probe, b"")
        with _refusal("Unauthorized to delete from output blob container. "):
            await found.delete(self._probe)

    async def read(self, container: str, name: str) -> bytes:
        """Return the content of a blob.

        Raises:
            BlobContainerValidationError: the blob can't be read, or is larger than
                `limits.TRANSFER_BLOB_BYTES`.
        """
        with _refusal(""):
            return await self._find(container).read(name)

    async def write(self, container: str, name: str, content: bytes) -> None:
        """Write the whole of a blob, or nothing; a blob of this name is replaced.

        Raises:
            BlobContainerValidationError
        """
        with _refusal(f"The blob {name} could not be written. "):
            await self._find(container).write(name, content)

    def _find(self, container: str) -> Container:
        if container.startswith("file:"):
            return self._find_folder(container)
        match = CONTAINER_URL.fullmatch(container)
        if match is None:
            raise BlobError(
                "The container is neither file:///NAME nor a URL such as "
                "http://127.0.0.1:10000/devstoreaccount1/NAME?SAS."
            )
        address = Address(match["host"].lower(), int(match["port"] or PORTS[match["scheme"]]))
        if address not in self._hosts:
            raise BlobError(
                f"The emulator does not call {address}, unless it is started with "
                f"--storage-host {address}."
            )
        if match["sas"] is None:
            raise BlobError("The URL has no SAS, which must allow to read, write and delete.")
        url = f"{match['scheme']}://{address}{match['path']}/{{}}?{match['sas']}"
        return AccountContainer(url, self._timeout)

    def _find_folder(self, container: str) -> FolderContainer:
        match = FOLDER_URI.fullmatch(container)
        if match is None:
            raise BlobError(
                "Invalid URI of a folder. Use file:///NAME for the folder NAME in the folder of "
                "--storage."
            )
        name = checked_name(match[1])
        if self._folder is None:
            raise BlobError(
                f"The emulator has no folders: start it with --storage DIR, and make DIR/{name}."
            )
        return FolderContainer(self._folder, name)


@contextlib.contextmanager
def _refusal(start: str) -> Iterator[None]:
    """Raise the error of the hub in place of a BlobError; its text begins with `start`."""
    try:
        yield
    except BlobError as error:
        raise BlobContainerValidationError(f"{start}{error}") from None
