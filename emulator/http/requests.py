"""A request: its path's names, its headers and its body."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import StreamResponse

from emulator.hub.core.errors import ClientClosedRequest, DeserializationError, MessageTooLarge
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import loads
from emulator.hub.identities.identity import IdentityKey

_NO_CONTENT = 204

# `x-ms-request-id` is a GUID: a random one, with the number of the answer as its last part. Another
# random one each time would take as long as to find the route.
_REQUEST_IDS = str(uuid.uuid4())[:24]
_requests = itertools.count()


class Request(BaseRequest):
    """A request, with what its path names: `{"device_id": "x"}`."""

    names: Mapping[str, str] = MappingProxyType({})

    async def _prepare_hook(self, response: StreamResponse) -> None:
        """Add what a real hub sends with every answer (seen there).

        aiohttp calls it before it writes an answer's headers. Its public hook is the application's,
        which does the same one call further down.
        """
        response.headers["Server"] = "Microsoft-HTTPAPI/2.0"
        response.headers["Vary"] = "Origin"
        response.headers["x-ms-request-id"] = f"{_REQUEST_IDS}{next(_requests):012x}"
        if response.status == _NO_CONTENT:
            response.headers["Content-Length"] = "0"


async def read_body(request: Request) -> bytes:
    """Read a request's body.

    Raises:
        MessageTooLarge: it is over `limits.HTTP_BODY_BYTES`.
        DeserializationError: its content encoding doesn't fit it.
        ClientClosedRequest: the caller has left before its end.
    """
    try:
        return await request.read()
    except HTTPRequestEntityTooLarge:
        raise MessageTooLarge from None
    except RequestPayloadError as error:
        raise DeserializationError(f"The body can't be read: {error}") from None
    except ConnectionError:
        raise ClientClosedRequest from None


async def read_json(request: Request) -> Any:
    """Read a request's JSON body.

    Raises:
        DeserializationError: it is not JSON.
        MessageTooLarge, ClientClosedRequest: as `read_body`.
    """
    return _parse(await read_body(request))


async def read_optional_json(request: Request) -> Any:
    """Read a request's JSON body, as `read_json`; None if there is none."""
    body = await read_body(request)
    return _parse(body) if body else None


def _parse(body: bytes) -> Any:
    try:
        return loads(body)
    except ValueError as error:
        raise DeserializationError(f"The body is not JSON: {error}") from None


def identity_key(request: Request) -> IdentityKey:
    """Name the device or module that a request's path names."""
    return IdentityKey(request.names["device_id"], request.names.get("module_id"))


def if_match(request: Request) -> IfMatch:
    """Read a request's precondition."""
    return IfMatch.parse(request.headers.get("If-Match"))
