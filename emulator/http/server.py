"""The REST API's server: what every route has in common.

A route says which right it needs and in which form its errors are written; here each request is
authenticated, its api-version checked, its body read, and its error rendered.

What is used of aiohttp's server goes by the names of its modules, here and elsewhere: `aiohttp.web`
has the application as well, and takes a fiftieth of a start to import.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
import ssl
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

from aiohttp import HttpVersion11
from aiohttp.web_exceptions import HTTPException, HTTPRequestEntityTooLarge
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server
from msgspec import Struct

from emulator.http.operations import operation_of
from emulator.http.router import Found, Router
from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.policies import Right
from emulator.hub.access.throttles import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ClientClosedRequest,
    DeserializationError,
    GenericBadRequest,
    GenericMethodNotAllowed,
    GenericNotFound,
    GenericUnsupportedMediaType,
    HubError,
    InvalidProtocolVersion,
    MessageTooLarge,
    ServerError,
    message_body,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps, loads
from emulator.hub.core.times import utc_now
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.connections import Admission

log = logging.getLogger(__name__)

# `2021-04-12`, `2020-05-31-preview`. Any of that form passes: a newer one is never refused.
_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?", re.ASCII)

# `application/json; charset=utf-8`, `application/json-patch+json`, `text/json`.
_JSON = re.compile(r"(application|text)/([^\s;/]+\+)?json\s*(;.*)?", re.ASCII | re.IGNORECASE)

# Services ask the same again and again: how much is remembered as read.
_REMEMBERED_PATHS = 1024
_REMEMBERED_QUERIES = 256
_REMEMBERED_TYPES = 64

_NO_CONTENT = 204
_TOO_MANY_REQUESTS = 429


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


Handler = Callable[[IotHub, Request], Awaitable[StreamResponse]]
RequestHandler = Callable[[Request], Awaitable[StreamResponse]]
ErrorForm = Callable[[HubError, datetime], JsonObject]
CertificateReader = Callable[[ssl.SSLObject | None], ClientCertificate | None]
# Serves a request whose path has these parts.
_Serve = Callable[[Request, Sequence[str]], Awaitable[StreamResponse]]

# `x-ms-request-id` is a GUID: one drawn at random, with the number of the answer as its last part.
# To draw another each time would take as long as to find the route.
_REQUEST_IDS = str(uuid.uuid4())[:24]
_requests = itertools.count()


class Route(Struct, frozen=True):
    """One operation of the API.

    Args:
        path: such as `/devices/{device_id}`; see `Router`.
        right: what the caller's policy must have; of several rights, one will do.
        error_form: how this family of operations writes its errors.
        versioned: whether it is a hub's own route: a request must name an api-version, and a body
            that says what it is must say JSON. The emulator's own routes are for curl as well.
    """

    verb: str
    path: str
    right: Right
    handler: Handler
    error_form: ErrorForm = message_body
    versioned: bool = True


class DeviceRoute(Struct, frozen=True):
    """One operation of the API that a device calls for itself; its path names the device."""

    verb: str
    path: str
    handler: Callable[[IotHub, Request, Admission], Awaitable[StreamResponse]]


def make_server(
    hub: IotHub,
    routes: Iterable[Route | DeviceRoute],
    client_certificate: CertificateReader,
    web_sockets: Mapping[str, RequestHandler],
    logger: logging.Logger,
) -> Server:
    """Build what serves these routes.

    It is aiohttp's server without its application, whose router and hooks would take a third of the
    time that an answer takes.

    Args:
        client_certificate: tells which certificate the client of a TLS connection has shown.
        web_sockets: what upgrades a request to a WebSocket, by path.
        logger: hears what aiohttp has to say.
    """
    router: Router[_Serve] = Router()
    for route in routes:
        serve = (
            _service_handler(hub, route)
            if isinstance(route, Route)
            else _device_handler(hub, route, client_certificate)
        )
        router.add(route.verb, route.path, serve)
    for path, upgrade in web_sockets.items():
        router.add("GET", path, _upgrade_handler(upgrade))
    loop = asyncio.get_running_loop()
    return Server(
        _dispatcher(router),  # type: ignore[arg-type] # requests are what request_factory makes
        request_factory=functools.partial(
            Request, loop=loop, client_max_size=limits.HTTP_BODY_BYTES
        ),
        access_log=None,
        logger=logger,
    )


def _dispatcher(router: Router[_Serve]) -> RequestHandler:
    @functools.lru_cache(_REMEMBERED_PATHS)
    def find(path: str) -> tuple[list[str], list[Found[_Serve]]]:
        parts = [unquote(part) for part in path.split("/")[1:]]
        return parts, list(router.find(parts))

    async def dispatch(request: Request) -> StreamResponse:
        if "Expect" in request.headers:
            await _meet_expectation(request)
        parts, found = find(request.rel_url.raw_path)
        for each in found:
            serve = each.verbs.get(request.method)
            if serve is not None:
                request.names = each.names
                return await serve(request, parts)
        return _refuse_path(request, {verb for each in found for verb in each.verbs})

    return dispatch


def _refuse_path(request: Request, allowed: Collection[str]) -> Response:
    """Refuse what no route is for: what a real hub says then is not known."""
    if not allowed:
        return _error_response(GenericNotFound(f"No route {request.path}"), message_body)
    error = GenericMethodNotAllowed(f"{request.method} is not allowed on {request.path}")
    response = _error_response(error, message_body)
    response.headers["Allow"] = ",".join(sorted(allowed))
    return response


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


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; the charset stands in the content type as a real hub writes it."""
    return Response(
        status=status,
        body=dumps(value),
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
    )


def no_content() -> Response:
    """Answer 204."""
    return Response(status=204)


async def _meet_expectation(request: Request) -> None:
    """Ask for the body of a caller that waits to be asked; other expectations mean nothing here."""
    if request.version >= HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer that is to come


def _service_handler(hub: IotHub, route: Route) -> _Serve:
    """Wrap a service's operation: its caller is authorized first."""
    operation = operation_of(route.verb, route.path)

    async def handle(request: Request, resource: Sequence[str]) -> StreamResponse:
        try:
            token = request.headers.get("Authorization")
            hub.authorize(token, route.right, host=request.host, resource=resource)
            if route.versioned:
                _check_api_version(request)
                _check_content_type(request)
            _charge(hub, operation, request)
        except HubError as error:
            return _refuse(request, error)
        return await _answer(request, route.handler(hub, request), route.error_form)

    return handle


def _device_handler(
    hub: IotHub, route: DeviceRoute, client_certificate: CertificateReader
) -> _Serve:
    """Wrap a device's operation: the device is admitted first."""
    operation = operation_of(route.verb, route.path)

    async def handle(request: Request, _: Sequence[str]) -> StreamResponse:
        try:
            device = hub.admit(
                identity_key(request),
                request.headers.get("Authorization"),
                host=request.host,
                certificate=client_certificate(request.get_extra_info("ssl_object")),
            )
            _check_api_version(request)
            _charge(hub, operation, request)
        except HubError as error:
            return _refuse(request, error)
        return await _answer(request, route.handler(hub, request, device), message_body)

    return handle


def _upgrade_handler(upgrade: RequestHandler) -> _Serve:
    """Wrap an upgrade to a WebSocket; what speaks on it authenticates its peer."""

    async def handle(request: Request, _: Sequence[str]) -> StreamResponse:
        try:
            return await upgrade(request)
        except HTTPException as error:
            return _error_response(GenericBadRequest(error.reason), message_body)

    return handle


def _refuse(request: Request, error: HubError) -> Response:
    """Refuse a request before it is carried out: in the same form on every route."""
    log.info("Refused %s %s: %s", request.method, request.path, error.__cause__ or error)
    return _error_response(error, message_body)


async def _answer(
    request: Request, answer: Awaitable[StreamResponse], form: ErrorForm
) -> StreamResponse:
    try:
        return await answer
    except HubError as error:
        return _error_response(error, form)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error_response(ServerError(), form)


def _check_api_version(request: Request) -> None:
    if not _names_api_version(request.rel_url.raw_query_string):
        raise InvalidProtocolVersion


@functools.lru_cache(_REMEMBERED_QUERIES)
def _names_api_version(query: str) -> bool:
    versions = parse_qs(query, keep_blank_values=True).get("api-version", [""])
    return _API_VERSION.fullmatch(versions[0]) is not None


def _check_content_type(request: Request) -> None:
    content_type = request.headers.get("Content-Type", "").strip()
    if content_type and request.body_exists and not _is_json(content_type):
        raise GenericUnsupportedMediaType(f"The body is {content_type}, and must be JSON")


@functools.lru_cache(_REMEMBERED_TYPES)
def _is_json(content_type: str) -> bool:
    return _JSON.fullmatch(content_type) is not None


def _charge(hub: IotHub, operation: Operation | None, request: Request) -> None:
    if operation is not None:
        hub.throttles.charge(operation, size=request.content_length or 0)


def _error_response(error: HubError, form: ErrorForm) -> Response:
    response = json_response(
        form(error, utc_now()), status=error.status, headers={"iothub-errorcode": error.name}
    )
    if response.status == _TOO_MANY_REQUESTS:
        response.force_close()  # as a real hub does, which sends no Retry-After (seen there)
    return response
