"""Module identities: `/devices/{id}/modules` (IoT Hub docs: module twins).

A real hub sends no ETag header here, and writes errors in a form of their own (seen there).
"""

from __future__ import annotations

from datetime import datetime

from aiohttp.web_response import Response

from emulator.http.server import (
    Request,
    Route,
    identity_key,
    if_match,
    json_response,
    no_content,
    read_json,
)
from emulator.hub.access.policies import Right
from emulator.hub.core.errors import HubError, IotHubUnauthorizedAccess, flat_body, nested_body
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_module(hub: IotHub, request: Request) -> Response:
    """`GET /devices/{id}/modules/{id}`: 200 with the identity."""
    return json_response(hub.registry.get_module(identity_key(request)))


async def put_module(hub: IotHub, request: Request) -> Response:
    """`PUT /devices/{id}/modules/{id}`: create it, or with `If-Match` update it; 200."""
    body = await read_json(request)
    return json_response(hub.registry.put_module(identity_key(request), body, if_match(request)))


async def delete_module(hub: IotHub, request: Request) -> Response:
    """`DELETE /devices/{id}/modules/{id}`: 204; needs `If-Match`."""
    hub.registry.delete_module(identity_key(request), if_match(request))
    return no_content()


async def list_modules(hub: IotHub, request: Request) -> Response:
    """`GET /devices/{id}/modules`: 200 with an array of identities."""
    return json_response(hub.registry.list_modules(request.names["device_id"]))


def _error_body(error: HubError, now: datetime) -> JsonObject:
    """Write an error in the flat form; that the device can't be used, in the nested one."""
    form = nested_body if isinstance(error, IotHubUnauthorizedAccess) else flat_body
    return form(error, now)


_MODULE = "/devices/{device_id}/modules/{module_id}"

ROUTES = tuple(
    Route(verb, path, right, handler, error_form=_error_body)
    for verb, path, right, handler in (
        ("GET", "/devices/{device_id}/modules", Right.REGISTRY_READ, list_modules),
        ("GET", _MODULE, Right.REGISTRY_READ, get_module),
        ("PUT", _MODULE, Right.REGISTRY_WRITE, put_module),
        ("DELETE", _MODULE, Right.REGISTRY_WRITE, delete_module),
    )
)
