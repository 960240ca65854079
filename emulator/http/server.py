"""The server of the REST API: the head for services, and for devices that use HTTPS.

Each request passes the gate. The server checks its api-version and its content type, calls the
handler of its route, and writes the answer or the error.

It is aiohttp's server without aiohttp's application, whose router and hooks would take a third of
the time of an answer. All imports are from single modules of aiohttp, because `aiohttp.web` also
imports the application, which adds 4 ms to a start.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from aiohttp.web_exceptions import HTTPException, HTTPForbidden
from aiohttp.web_response import Response, StreamResponse

from emulator.http import api_versions
from emulator.http.requests import Request, identity_key
from emulator.http.responses import ErrorForm, json_response, message_body
from emulator.http.route import Route
from emulator.hub.core import errors, limits
from emulator.hub.core.printable import printable
from emulator.hub.gate import DeviceCaller, ServiceCaller
from emulator.hub.hub import IotHub
from emulator.net.first_bytes import MakeProtocol, Switch
from emulator.net.http_connection import HttpConnections
from emulator.net.listeners import accept
from emulator.net.router import Found, Router
from emulator.net.tls import Handshakes

log = logging.getLogger(__name__)


# `application/json; charset=utf-8`, `application/json-patch+json`, `text/json`.
_JSON = re.compile(r"(application|text)/([^\s;/]+\+)?json\s*(;.*)?", re.ASCII | re.IGNORECASE)

# Services repeat their requests. These are the sizes of the caches for their parts. Anyone can fill
# them, so long parts are not remembered.
_REMEMBERED_PATHS = 1024
_REMEMBERED_QUERIES = 256
_REMEMBERED_LENGTH = 1024

# More than the slashes in the path of any route.
_SLASHES = 16

_TOO_MANY_REQUESTS = 429

RequestHandler = Callable[[Request], Awaitable[StreamResponse]]
# Returns the handler of a request, if its path is one of another service.
FindOther = Callable[[Request, Sequence[str]], RequestHandler | None]
# Answers a request; the second argument has the segments of its path.
_Serve = Callable[[Request, Sequence[str]], Awaitable[StreamResponse]]


class HttpServer:
    """Serves the routes of a hub.

    Args:
        hub: the hub.
        routes: the routes of services and of devices.
        handshakes: the handshakes of TLS, with the certificates of clients.
        web_sockets: by path, the handlers that upgrade a request to a WebSocket.
        others: by first bytes, other protocols that are spoken on this port (see `Switch`).
        session_token: finds the SAS token of a request with a cookie of the page.
        find_other: returns the handler of a path that has no route, if it is one of another
            service that shares the port.
    """

    def __init__(
        self,
        hub: IotHub,
        routes: Iterable[Route],
        handshakes: Handshakes,
        web_sockets: Mapping[str, RequestHandler],
        others: Mapping[bytes, MakeProtocol],
        session_token: Callable[[Request], str | None],
        find_other: FindOther | None = None,
    ) -> None:
        self._hub = hub
        self._handshakes = handshakes
        self._session_token = session_token
        self._router: Router[_Serve] = Router()
        for route in routes:
            self._router.add(route.verb, route.path, functools.partial(self._serve, route))
        for path, upgrade in web_sockets.items():
            self._router.add("GET", path, functools.partial(self._upgrade, upgrade))
        self._find = functools.lru_cache(_REMEMBERED_PATHS)(self._find_route)
        self._listening: list[asyncio.Server] = []
        self._others = others
        self._find_other = find_other

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept HTTPS connections on bound sockets."""
        loop, machine = asyncio.get_running_loop(), self._hub.clock.machine
        make = functools.partial(Request, loop=loop, client_max_size=limits.HTTP_BODY_BYTES)
        # Requests are what `make` makes.
        dispatch: Any = self._log_each if log.isEnabledFor(logging.DEBUG) else self._dispatch
        self._server = HttpConnections(dispatch, make, machine, self._malformed)
        # Not aiohttp's own site, which has no time limit for a handshake.
        self._switch = Switch(machine, self._server, self._others)
        self._listening = await accept(self._switch, sockets, self._handshakes.context)

    async def stop(self) -> None:
        """Stop accepting, answer the requests that have arrived, and close the connections."""
        for server in self._listening:
            server.close()
        await self._server.stop()
        for transport in tuple(self._switch.waiting):
            transport.abort()
        await asyncio.sleep(0)

    @property
    def open_connections(self) -> int:
        """How many connections are open on which something has arrived."""
        return len(self._server.connections)

    @property
    def requests(self) -> int:
        """How many requests have come."""
        return self._server.requests_count

    def use(self, hub: IotHub) -> None:
        """Serve another hub from now on. Connections stay: each request is one of its own."""
        self._hub = hub

    # --- a request

    async def _log_each(self, request: Request) -> StreamResponse:
        response = await self._dispatch(request)
        log.debug("%s %r: %d", printable(request.method), request.path, response.status)
        return response

    async def _dispatch(self, request: Request) -> StreamResponse:
        try:
            return await self._answer_request(request)
        except Exception:
            log.exception("%r %r failed", request.method, request.path)
            return self._error(errors.ServerError())

    async def _answer_request(self, request: Request) -> StreamResponse:
        if "Expect" in request.headers:
            await request.invite_body()
        path = request.rel_url.raw_path
        find = self._find if len(path) <= _REMEMBERED_LENGTH else self._find_route
        segments, found = find(path)
        # A WebSocket of another service can ask for the path of the page.
        find_other = self._find_other if not found or path == "/" else None
        if find_other and (other := find_other(request, segments)):
            return await self._upgrade(other, request, segments)
        for each in found:
            if serve := each.verbs.get(request.method):
                request.names = each.names
                return await serve(request, segments)
        return self._refuse_path(request, {verb for each in found for verb in each.verbs})

    def _find_route(self, path: str) -> tuple[list[str], list[Found[_Serve]]]:
        segments = [unquote(part) for part in path.split("/", _SLASHES)[1:]]
        return segments, list(self._router.find(segments))

    async def _serve(
        self, route: Route, request: Request, resource: Sequence[str]
    ) -> StreamResponse:
        if route.operation is None:
            return await self._answer(route, request)
        size, flaw = request.content_length or 0, _flaw(route, request)
        try:
            caller = self._caller(route, request, resource)
            admission = self._hub.gate.enter(caller, route.operation, size=size, flaw=flaw)
        except errors.HubError as error:
            # The handler has not run: the form is the same on every route.
            reason = error.__cause__ or error
            verb, path = request.method, request.path
            self._hub.refusals.info(
                "Refused %s %r: %s", printable(verb), path, printable(reason), error=error
            )
            is_dropped = isinstance(error, errors.ConnectionForcefullyClosedOnFaultInjection)
            if is_dropped and request.transport is not None:
                request.transport.abort()  # the answer is not sent
            return self._error(error)
        if admission is not None:
            request.device = admission
        return await self._answer(route, request)

    def _caller(
        self, route: Route, request: Request, resource: Sequence[str]
    ) -> ServiceCaller | DeviceCaller:
        """Return the caller of a route, with its credentials; a service can have a session."""
        token = request.headers.get("Authorization")
        if route.for_device:
            tls = request.get_extra_info("ssl_object")
            certificate = self._handshakes.client_certificate(tls)
            return DeviceCaller(identity_key(request), token, request.host, certificate)
        if token is None and "Cookie" in request.headers:
            token = self._session_token(request)
        return ServiceCaller(token, request.host, resource, request.method)

    async def _upgrade(
        self, upgrade: RequestHandler, request: Request, _: Sequence[str]
    ) -> StreamResponse:
        """Pass a request to what checks it itself: a head over WebSockets, or another service."""
        try:
            return await upgrade(request)
        except HTTPForbidden as error:
            return self._error(errors.GenericForbidden(error.reason))
        except HTTPException as error:
            return self._error(errors.GenericBadRequest(error.reason))

    async def _answer(self, route: Route, request: Request) -> StreamResponse:
        try:
            result = await route.handler(self._hub, request)
            if isinstance(result, StreamResponse):
                return result
            return Response(status=204) if result is None else json_response(result)
        except errors.HubError as error:
            return self._error(error, route.error_form)
        except Exception:
            log.exception("%r %r failed", request.method, request.path)
            return self._error(errors.ServerError(), route.error_form)

    # --- refusals

    def _refuse_path(self, request: Request, allowed: Collection[str]) -> Response:
        """Refuse a path or a method without a route, as the web framework of a real hub does.

        The body for a method was seen on a real hub. The body for a path is unknown: this is what
        the same framework, ASP.NET Web API, sends by default.
        """
        if not allowed:
            path = request.rel_url.raw_path.encode("utf-8", "replace").decode()
            text = f"No HTTP resource was found that matches the request URI '{path}'."
            return json_response({"Message": text}, status=404)
        text = f"The requested resource does not support http method '{request.method}'."
        headers = {"Allow": ",".join(sorted(allowed))}
        return json_response({"Message": text}, status=405, headers=headers)

    def _malformed(self) -> Response:
        return self._error(errors.GenericBadRequest("The request is not valid HTTP/1.1"))

    def _error(self, error: errors.HubError, form: ErrorForm = message_body) -> Response:
        body = form(error, self._hub.clock.now())
        headers = {"iothub-errorcode": error.name}
        response = json_response(body, status=error.status, headers=headers)
        if response.status == _TOO_MANY_REQUESTS:
            response.force_close()  # a real hub does this, and sends no Retry-After (seen there)
        return response


def _names_api_version(query: str) -> bool:
    parse = _parse_api_version
    return (parse if len(query) <= _REMEMBERED_LENGTH else parse.__wrapped__)(query)


@functools.lru_cache(_REMEMBERED_QUERIES)
def _parse_api_version(query: str) -> bool:
    return api_versions.is_named(query)


def _flaw(route: Route, request: Request) -> errors.HubError | None:
    """Return the error in the api-version or the content type of a request."""
    if not route.versioned:
        return None
    if not _names_api_version(request.rel_url.raw_query_string):
        return errors.InvalidProtocolVersion()
    content_type = request.headers.get("Content-Type", "").strip()
    if route.for_device or not content_type or not request.body_exists or _is_json(content_type):
        return None
    return errors.GenericUnsupportedMediaType(
        f"Unsupported content type: {content_type}. Use application/json"
    )


def _is_json(content_type: str) -> bool:
    return _JSON.fullmatch(content_type) is not None
