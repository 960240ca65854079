"""A container of a storage account, or of a storage emulator."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
from yarl import URL

from emulator.storage.container import BlobError, StorageError, check_size

# `https://account.blob.core.windows.net/container?sas`, and a storage emulator's
# `http://127.0.0.1:10000/account/container?sas`. The pattern is so strict that all parsers agree.
_HOST = r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?"
CONTAINER_URL = re.compile(
    rf"(?P<scheme>https?)://{_HOST}(?P<path>(/[A-Za-z0-9$-]+){{1,2}})/?"
    r"(\?(?P<sas>[A-Za-z0-9%&=._~:+/,;!*'()$-]+))?",
    re.ASCII,
)
PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
_ERROR_CODE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)

# Azure Storage docs: versions of the storage services. From this one on, a blob of any size that
# the hub writes goes in one request.
_VERSION = {"x-ms-version": "2020-10-02"}


class Address(NamedTuple):
    """Host and port of a storage account."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def addresses(host: str) -> list[Address]:
    """Parse `host`, for the default ports of HTTP and HTTPS, or `host:port`.

    Raises:
        StorageError: the text is neither.
    """
    match = re.fullmatch(_HOST, host, re.ASCII)
    if match is None or int(match["port"] or 0) > _LAST_PORT:
        raise StorageError(f"Invalid host of a storage {host!r}: use HOST or HOST:PORT.")
    ports = [int(match["port"])] if match["port"] else list(PORTS.values())
    return [Address(match["host"].lower(), port) for port in ports]


class AccountContainer:
    """A container of a storage account (Azure Storage docs: Blob service REST API).

    Args:
        url: the URL of a blob, with `{}` for its name.
        timeout: how long a request may take.
    """

    def __init__(self, url: str, timeout: aiohttp.ClientTimeout) -> None:
        self._url = url
        self._timeout = timeout

    async def read(self, name: str) -> bytes:
        """See `Container.read`."""
        return await self._call("GET", name, 200)

    async def write(self, name: str, content: bytes) -> None:
        """See `Container.write`."""
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "text/plain; charset=utf-8"}
        await self._call("PUT", name, 201, headers=headers, data=content)

    async def delete(self, name: str) -> None:
        """See `Container.delete`."""
        await self._call("DELETE", name, 202)

    async def _call(self, verb: str, name: str, expected: int, **options: Any) -> bytes:
        """Send a request, and return the body of its answer."""
        url = URL(self._url.format(quote(name)), encoded=True)
        async with answered(verb, url, self._timeout, **options) as answer:
            if answer.status != expected:
                raise _refused(answer)
            return await _bounded(answer)


@contextlib.asynccontextmanager
async def answered(
    verb: str, url: URL, timeout: aiohttp.ClientTimeout, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request to a storage, and receive its answer in a block.

    No error repeats a text of the client library, because that can hold the URL with its SAS.

    Raises:
        BlobError
    """
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout,
                headers=_VERSION,
                skip_auto_headers=("Accept-Encoding",),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(verb, url, allow_redirects=False, **options) as answer,
        ):
            yield answer
    except TimeoutError:
        raise BlobError("The storage did not answer in time.") from None
    except aiohttp.ClientConnectorCertificateError:
        raise BlobError(
            "The certificate of the storage is not trusted. Name its CA in SSL_CERT_FILE."
        ) from None
    except aiohttp.ClientSSLError:
        raise BlobError(
            "The storage does not speak TLS. Azurite does so with its options --cert and --key."
        ) from None
    except aiohttp.ClientConnectorError as error:
        why = error.os_error.strerror or type(error.os_error).__name__
        raise BlobError(f"The storage can't be reached ({why}): does it run?") from None
    except (aiohttp.ClientError, OSError) as error:
        raise BlobError(f"The storage closed the connection ({type(error).__name__}).") from None


def error_code(answer: aiohttp.ClientResponse) -> str:
    """Return the status of an answer, and the code of its error if it has one."""
    code = answer.headers.get("x-ms-error-code", "")
    return f"{answer.status} {code}" if _ERROR_CODE.fullmatch(code) else str(answer.status)


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        check_size(content)
    return bytes(content)


def _refused(answer: aiohttp.ClientResponse) -> BlobError:
    return BlobError(
        f"The storage answered {error_code(answer)}. The SAS must allow to read, write and "
        "delete, and the container must exist."
    )
