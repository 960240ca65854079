"""The REST API's application: what every route has in common.

A route says which right it needs and in which form its errors are written; here each request is
authenticated, its api-version checked, its body read, and its error rendered.
"""

from __future__ import annotations

import logging
import re
import ssl
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from emulator.hub import limits
from emulator.hub.access import ClientCertificate, Right
from emulator.hub.errors import (
    DeserializationError,
    GenericBadRequest,
    GenericMethodNotAllowed,
    GenericNotFound,
    HubError,
    InvalidProtocolVersion,
    MessageTooLarge,
    ServerError,
    message_body,
)
from emulator.hub.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities import IdentityKey
from emulator.hub.jsontext import JsonObject, dumps, loads
from emulator.hub.times import utc_now

log = logging.getLogger(__name__)

# `2021-04-12`, `2020-05-31-preview`. Any of that form passes: a newer one is never refused.
_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?", re.ASCII)

# What a real hub sends with every answer.
_HEADERS = {"Server": "Microsoft-HTTPAPI/2.0", "Vary": "Origin"}

Handler = Callable[[IotHub, web.Request], Awaitable[web.StreamResponse]]
ErrorForm = Callable[[HubError, datetime], JsonObject]
CertificateReader = Callable[[ssl.SSLObject | None], ClientCertificate | None]


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Args:
        path: such as `/devices/{device_id}`; its fixed parts match in any case.
        right: what the caller's policy must have; None where a device calls for itself, whose
            admission the handler finds in `request["device"]`.
        error_form: how this family of operations writes its errors.
        versioned: whether a request must name an api-version.
    """

    verb: str
    path: str
    right: Right | None
    handler: Handler
    error_form: ErrorForm = message_body
    versioned: bool = True


def make_app(
    hub: IotHub, routes: Iterable[Route], client_certificate: CertificateReader
) -> web.Application:
    """Build the application that serves these routes.

    Args:
        client_certificate: tells which certificate the client of a TLS connection has shown.
    """
    app = web.Application(middlewares=[_outside_routes], client_max_size=limits.HTTP_BODY_BYTES)
    for route in routes:
        app.router.add_route(
            route.verb, _pattern(route.path), _endpoint(hub, route, client_certificate)
        )
    return app


async def read_json(request: web.Request) -> Any:
    """Read a request's JSON body.

    Raises:
        DeserializationError: it is not JSON.
        MessageTooLarge: it is over `limits.HTTP_BODY_BYTES`.
    """
    try:
        return loads(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise MessageTooLarge from None
    except ValueError as error:
        raise DeserializationError(f"The body is not JSON: {error}") from None


def identity_key(request: web.Request) -> IdentityKey:
    """Name the device or module that a request's path names."""
    ids = request.match_info
    return IdentityKey(ids["device_id"], ids.get("module_id"))


def if_match(request: web.Request) -> IfMatch:
    """Read a request's precondition."""
    return IfMatch.parse(request.headers.get("If-Match"))


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with JSON; the charset stands in the content type as a real hub writes it."""
    return web.Response(
        status=status,
        body=dumps(value),
        headers={
            **_HEADERS,
            "Content-Type": "application/json; charset=utf-8",
            "x-ms-request-id": str(uuid.uuid4()),
            **(headers or {}),
        },
    )


def no_content() -> web.Response:
    """Answer 204."""
    return web.Response(
        status=204,
        headers={**_HEADERS, "Content-Length": "0", "x-ms-request-id": str(uuid.uuid4())},
    )


def _endpoint(
    hub: IotHub, route: Route, client_certificate: CertificateReader
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        try:
            _authenticate(hub, route, request, client_certificate)
            version = request.query.get("api-version", "")
            if route.versioned and not _API_VERSION.fullmatch(version):
                raise InvalidProtocolVersion
            return await route.handler(hub, request)
        except HubError as error:
            return _error_response(error, route.error_form)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return _error_response(ServerError(), route.error_form)

    return endpoint


def _authenticate(
    hub: IotHub, route: Route, request: web.Request, client_certificate: CertificateReader
) -> None:
    token = request.headers.get("Authorization")
    if route.right is None:
        request["device"] = hub.admit(
            identity_key(request),
            token,
            host=request.host,
            certificate=client_certificate(request.get_extra_info("ssl_object")),
        )
    else:
        hub.authorize(token, route.right, host=request.host)


def _error_response(error: HubError, form: ErrorForm) -> web.Response:
    return json_response(
        form(error, utc_now()), status=error.status, headers={"iothub-errorcode": error.name}
    )


@web.middleware
async def _outside_routes(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Render what goes wrong before a route is found: what a real hub says there is not known."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _error_response(GenericNotFound(f"No route {request.path}"), message_body)
    except web.HTTPMethodNotAllowed:
        error = GenericMethodNotAllowed(f"{request.method} is not allowed on {request.path}")
        return _error_response(error, message_body)
    except web.HTTPException as error:
        return _error_response(GenericBadRequest(error.reason), message_body)


def _pattern(path: str) -> str:
    """Make a path's fixed parts match in any case, and a slash at its end optional.

    Clients mix spellings such as `deviceBound` and `devicebound`, and the SDK for Node lists
    devices at `/devices/`.
    """
    parts = []
    for number, part in enumerate(path.strip("/").split("/")):
        parts.append(part if part.startswith("{") else f"{{_{number}:(?i:{re.escape(part)})}}")
    return f"/{'/'.join(parts)}{{_end:/?}}"
