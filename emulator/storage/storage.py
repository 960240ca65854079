"""Where import and export jobs find their files: in a folder, or in a storage account.

Whoever has the key of a policy with RegistryWrite chooses the container. So a folder is one in the
folder that the user has named, and nothing is called over the network but the hosts that the user
may have meant.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from emulator.hub.core import limits
from emulator.hub.core.errors import BlobContainerValidationError

_T = TypeVar("_T")

# `file:///NAME`. SDKs pass it on as it is.
_FOLDER_URI = re.compile(r"file:///([^/]+)/?", re.ASCII)
# A name of a folder or file that is one on every system, and leads nowhere else; those of our
# temporary files are none.
_NAME = re.compile(r"[A-Za-z0-9_$-][A-Za-z0-9_.$-]{0,127}", re.ASCII)
# What Windows takes for a device, in whatever folder.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d)(\..*)?", re.I | re.ASCII)

# `https://account.blob.core.windows.net/container?sas`, and a storage emulator's
# `http://127.0.0.1:10000/account/container?sas`. So strict that no two parsers read it differently.
_HOST = r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?"
_CONTAINER_URL = re.compile(
    rf"(?P<scheme>https?)://{_HOST}(?P<path>(/[A-Za-z0-9$-]+){{1,2}})/?"
    r"(\?(?P<sas>[A-Za-z0-9%&=._~:+/,;!*'()$-]+))?",
    re.ASCII,
)
_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
_ERROR_CODE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)

# Azure Storage docs: versions of the storage services. From this one on, a blob of any size that
# the hub writes goes in one request.
_VERSION = {"x-ms-version": "2020-10-02"}
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=10)


class StorageError(ValueError):
    """A setting of the storage is none; the text is one line that says what would be one."""


class _BlobError(Exception):
    """What is wrong with a container or a blob; the text says what to do, and holds no secret."""


class Storage:
    """The containers that import and export jobs may use (see `Blobs` in `hub.jobs.transfers`).

    Args:
        folder: its folders are containers, `file:///NAME`; None: there are none.
        hosts: the storage accounts and emulators that may be called: `host`, for the usual ports
            of HTTP and HTTPS, or `host:port`.
        timeout: how long these may take.

    Raises:
        StorageError: the folder isn't there, or a host is none.
    """

    def __init__(
        self,
        folder: Path | None,
        hosts: Iterable[str],
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> None:
        self._folder = None if folder is None else _real_folder(folder)
        self._hosts = frozenset(address for host in hosts for address in _addresses(host))
        self._timeout = timeout
        # One name for all checks: a container whose blobs can't be deleted keeps but one of them.
        self._probe = f"iothub-check-{secrets.token_hex(8)}"

    async def check(self, container: str) -> None:
        """Write a blob to the container and delete it again: a hub needs to be able to do both.

        Raises:
            BlobContainerValidationError: the start of the text is a real hub's.
        """
        what = "write to"
        try:
            found = self._find(container)
            await found.write(self._probe, b"")
            what = "delete from"
            await found.delete(self._probe)
        except _BlobError as error:
            raise BlobContainerValidationError(
                f"Unauthorized to {what} output blob container. {error}"
            ) from None

    async def read(self, container: str, name: str) -> bytes:
        """Read a blob.

        Raises:
            BlobContainerValidationError: it can't be read, or has more than
                `limits.TRANSFER_BLOB_BYTES`.
        """
        try:
            return await self._find(container).read(name)
        except _BlobError as error:
            raise BlobContainerValidationError(str(error)) from None

    async def write(self, container: str, name: str, content: bytes) -> None:
        """Write a blob, in the place of one of that name: the whole of it, or nothing.

        Raises:
            BlobContainerValidationError
        """
        try:
            await self._find(container).write(name, content)
        except _BlobError as error:
            raise BlobContainerValidationError(
                f"The blob {name} could not be written. {error}"
            ) from None

    def _find(self, container: str) -> _Container:
        if container.startswith("file:"):
            return self._find_folder(container)
        match = _CONTAINER_URL.fullmatch(container)
        if match is None:
            raise _BlobError(
                "The container is neither file:///NAME nor a URL such as "
                "http://127.0.0.1:10000/devstoreaccount1/NAME?SAS."
            )
        address = _Address(match["host"].lower(), int(match["port"] or _PORTS[match["scheme"]]))
        if address not in self._hosts:
            raise _BlobError(
                f"The emulator does not call {address}, unless it is started with "
                f"--storage-host {address}."
            )
        if match["sas"] is None:
            raise _BlobError("The URL has no SAS, which must allow to read, write and delete.")
        url = f"{match['scheme']}://{address}{match['path']}/{{}}?{match['sas']}"
        return _AccountContainer(url, self._timeout)

    def _find_folder(self, container: str) -> _Folder:
        match = _FOLDER_URI.fullmatch(container)
        if match is None:
            raise _BlobError(
                "The URI of a folder is file:///NAME: the one of this name in the folder that "
                "--storage names."
            )
        name = _checked(match[1])
        if self._folder is None:
            raise _BlobError(
                f"The emulator has no folders: start it with --storage DIR, and make DIR/{name}."
            )
        return _Folder(self._folder, name)


class _Container(Protocol):
    """One container. Each of its methods raises `_BlobError`."""

    async def read(self, name: str) -> bytes: ...

    async def write(self, name: str, content: bytes) -> None: ...

    async def delete(self, name: str) -> None: ...


# --- folders


class _Folder:
    """A folder in the one that the user has named.

    It is looked up each time, because it can be gone, or be a link by now.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name

    async def read(self, name: str) -> bytes:
        return await _in_thread(lambda: self._read(_checked(name)))

    async def write(self, name: str, content: bytes) -> None:
        await _in_thread(lambda: self._write(_checked(name), content))

    async def delete(self, name: str) -> None:
        await _in_thread(lambda: (self._locate() / _checked(name)).unlink())

    def _locate(self) -> Path:
        try:
            folder = (self._root / self._name).resolve(strict=True)
        except (OSError, RuntimeError):  # the latter of links in a circle
            folder = None
        if folder is None or folder.parent != self._root or not folder.is_dir():
            raise _BlobError(
                f"There is no folder {self._name} in the one that --storage names: make it."
            )
        return folder

    def _read(self, name: str) -> bytes:
        folder = self._locate()
        try:
            file = (folder / name).resolve(strict=True)
        except RuntimeError:
            file = None
        if file is None or file.parent != folder:
            raise _BlobError(f"{name} leads out of its folder.")
        # What doesn't end, or waits for a writer, is never opened so that it blocks.
        flags = os.O_RDONLY | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_BINARY")
        with open(os.open(file, flags), "rb") as opened:  # noqa: PTH123 - it has these flags
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _BlobError(f"{name} is not a file.")
            content = opened.read(limits.TRANSFER_BLOB_BYTES + 1)
        if len(content) > limits.TRANSFER_BLOB_BYTES:
            raise _too_large()
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Write a file beside the old one, and put it in its place. Only its owner can read it."""
        folder = self._locate()
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - it is open already
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do something with files; once begun, it is waited for even by a job that was cancelled.

    Raises:
        _BlobError
    """
    doing = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        doing.exception()  # nobody else is to hear of it
        raise
    except OSError as error:
        raise _BlobError(f"The system says: {error.strerror or type(error).__name__}.") from None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name.endswith(".") or _DEVICE.fullmatch(name):
        raise _BlobError(
            f"{name[: limits.ID_LENGTH]!r} can't be the name of a folder or file here: letters, "
            "digits, and $ - _ . can, but not at the start or end."
        )
    return name


def _flag(name: str) -> int:
    flag: int = getattr(os, name, 0)  # not every system has each
    return flag


def _real_folder(folder: Path) -> Path:
    try:
        real = folder.resolve(strict=True)
    except (OSError, RuntimeError):
        real = None
    if real is None or not real.is_dir():
        raise StorageError(f"There is no folder {folder}: make it, or name another with --storage.")
    return real


# --- storage accounts


class _Address(NamedTuple):
    """Where a storage account is reached."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _addresses(host: str) -> list[_Address]:
    match = re.fullmatch(_HOST, host, re.ASCII)
    if match is None or int(match["port"] or 0) > _LAST_PORT:
        raise StorageError(f"--storage-host {host!r} is neither a host nor host:port.")
    ports = [int(match["port"])] if match["port"] else list(_PORTS.values())
    return [_Address(match["host"].lower(), port) for port in ports]


class _AccountContainer:
    """A container of a storage account (Azure Storage docs: Blob service REST API).

    Args:
        url: of a blob, with `{}` for its name.
    """

    def __init__(self, url: str, timeout: aiohttp.ClientTimeout) -> None:
        self._url = url
        self._timeout = timeout

    async def read(self, name: str) -> bytes:
        return await self._call("GET", name, 200)

    async def write(self, name: str, content: bytes) -> None:
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "text/plain; charset=utf-8"}
        await self._call("PUT", name, 201, headers, content)

    async def delete(self, name: str) -> None:
        await self._call("DELETE", name, 202)

    async def _call(
        self,
        verb: str,
        name: str,
        expected: int,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> bytes:
        """Send a request; gives the body of its answer.

        No text repeats what the client library says, because that may be the URL, SAS and all.
        """
        url = URL(self._url.format(quote(name)), encoded=True)
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=self._timeout,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=False,
                ) as session,
                session.request(
                    verb,
                    url,
                    data=content,
                    headers={**_VERSION, **(headers or {})},
                    skip_auto_headers=("Accept-Encoding",),
                    allow_redirects=False,
                ) as answer,
            ):
                if answer.status != expected:
                    raise _refused(answer)
                return await _bounded(answer)
        except TimeoutError:
            raise _BlobError("The storage did not answer in time.") from None
        except aiohttp.ClientSSLError:
            raise _BlobError(
                "There is no trusted TLS at the storage's end: SSL_CERT_FILE can name its CA."
            ) from None
        except aiohttp.ClientConnectorError as error:
            why = error.os_error.strerror or type(error.os_error).__name__
            raise _BlobError(f"The storage can't be reached ({why}): does it run?") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _BlobError(f"The storage broke off ({type(error).__name__}).") from None


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > limits.TRANSFER_BLOB_BYTES:
            raise _too_large()
    return bytes(content)


def _refused(answer: aiohttp.ClientResponse) -> _BlobError:
    code = answer.headers.get("x-ms-error-code", "")
    named = f" {code}" if _ERROR_CODE.fullmatch(code) else ""
    return _BlobError(
        f"The storage answered {answer.status}{named}. The SAS must allow to read, write and "
        "delete, and the container be there."
    )


def _too_large() -> _BlobError:
    return _BlobError(f"The blob has more than {limits.TRANSFER_BLOB_BYTES} bytes.")
