"""A request: the names in its path, its headers and its body."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, TypeVar

from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_response import StreamResponse

from emulator.hub.core import limits
from emulator.hub.core.errors import ClientClosedRequest, DeserializationError, MessageTooLarge
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import loads
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.net.http_connection import HttpRequest

_T = TypeVar("_T")

_NO_CONTENT = 204
_LARGE = 64 * 1024

# Inflates bodies and parses large ones: both take longer than devices should wait. It has one
# thread, because the event loop has its turn only after each thread that works.
_aside_thread = ThreadPoolExecutor(1, "emulator-bodies")

_TOO_LARGE = f"The body is too large. {limits.HTTP_BODY_BYTES} bytes are allowed"

# Content encodings, and zlib's parameter for each. A body of another encoding is taken as it is.
_ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

# `x-ms-request-id` is a GUID. Its last part is the number of the answer, because a random GUID for
# each answer would take as much time as the search for the route.
_REQUEST_IDS = str(uuid.uuid4())[:24]
_requests = itertools.count()


class Request(HttpRequest):
    """A request.

    Attributes:
        names: the values of the names in its path: `{"device_id": "x"}`.
        device: the admission of the device that sends it; only on the routes of devices.
    """

    names: Mapping[str, str] = MappingProxyType({})
    device: Admission

    def complete(self, response: StreamResponse) -> None:
        """Add the headers that a real hub sends with every answer (seen there)."""
        response.headers["Server"] = "Microsoft-HTTPAPI/2.0"
        response.headers["Vary"] = "Origin"
        response.headers["x-ms-request-id"] = f"{_REQUEST_IDS}{next(_requests):012x}"
        if response.status == _NO_CONTENT:
            response.headers["Content-Length"] = "0"


async def read_body(request: Request) -> bytes:
    """Return the body of a request, inflated.

    Raises:
        MessageTooLarge: the body is larger than `limits.HTTP_BODY_BYTES`, as it was sent or
            inflated.
        DeserializationError: the body does not match its content encoding.
        ClientClosedRequest: the client disconnected before the end of the body.
    """
    with _body_errors():
        body = await request.take_body()
    encoding = request.headers.get("Content-Encoding", "").lower()
    if body and encoding in _ENCODINGS:
        return await _aside(_inflate, body, encoding)
    return body


async def read_large_body(request: Request, most: int) -> bytes:
    """Return a body of at most so many bytes, as it was sent.

    Raises:
        MessageTooLarge, DeserializationError, ClientClosedRequest
    """
    body = bytearray()
    with _body_errors():
        async for part in request.content.iter_any():
            body += part
            if len(body) > most:
                raise MessageTooLarge(f"The body is too large. {most} bytes are allowed")
    return bytes(body)


@contextlib.contextmanager
def _body_errors() -> Iterator[None]:
    try:
        yield
    except HTTPRequestEntityTooLarge:
        raise MessageTooLarge(_TOO_LARGE) from None
    except RequestPayloadError as error:
        raise DeserializationError(f"The body cannot be decoded: {error}") from None
    except ConnectionError:
        raise ClientClosedRequest from None


def _inflate(body: bytes, encoding: str) -> bytes:
    window = _ENCODINGS[encoding]
    if encoding == "deflate" and body[0] & 0x0F != zlib.DEFLATED:
        window = -zlib.MAX_WBITS  # some clients leave the header of zlib out (RFC 9110, 8.4.1.2)
    inflater = zlib.decompressobj(window)
    try:
        inflated = inflater.decompress(body, limits.HTTP_BODY_BYTES + 1)
    except zlib.error as error:
        raise DeserializationError(f"The body cannot be decoded: {error}") from None
    if len(inflated) > limits.HTTP_BODY_BYTES:
        raise MessageTooLarge(_TOO_LARGE)
    if not inflater.eof or inflater.unused_data:
        raise DeserializationError(f"The body cannot be decoded: it is not one {encoding} stream")
    return inflated


async def read_json(request: Request, *, optional: bool = False) -> Any:
    """Return the JSON body of a request; None if it is empty and `optional`.

    Raises:
        DeserializationError: the body is not JSON.
        MessageTooLarge, ClientClosedRequest: see `read_body`.
    """
    body = await read_body(request)
    return None if optional and not body else await parse_json(body)


async def parse_json(body: bytes) -> Any:
    """Parse JSON.

    Raises:
        DeserializationError: the body is not JSON.
    """
    try:
        if len(body) <= _LARGE:
            return loads(body)
        return await _aside(loads, body)
    except ValueError as error:
        raise DeserializationError(f"The body is not JSON: {error}") from None


async def _aside(function: Callable[..., _T], *arguments: object) -> _T:
    """Call a function in the thread for bodies."""
    return await asyncio.get_running_loop().run_in_executor(_aside_thread, function, *arguments)


def identity_key(request: Request) -> IdentityKey:
    """Return the key of the device or module in the path of a request."""
    return IdentityKey(request.names["device_id"], request.names.get("module_id"))


def if_match(request: Request) -> IfMatch:
    """Return the condition on the etag of a request."""
    return IfMatch.parse(request.headers.get("If-Match"))
