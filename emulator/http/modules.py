"""Module identities: `/devices/{id}/modules` (IoT Hub docs: module twins).

A real hub sends no ETag header here, and errors have a special form (seen there).
"""

from __future__ import annotations

from emulator.http.errors import module_body
from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_module(hub: IotHub, request: Request) -> JsonObject:
    """`GET /devices/{id}/modules/{id}`: 200 with the identity."""
    return hub.identities.get(identity_key(request))


async def put_module(hub: IotHub, request: Request) -> JsonObject:
    """`PUT /devices/{id}/modules/{id}`: create it, or with `If-Match` update it; 200."""
    body = await read_json(request)
    return hub.identities.put(identity_key(request), body, if_match(request))


async def delete_module(hub: IotHub, request: Request) -> None:
    """`DELETE /devices/{id}/modules/{id}`: 204; needs `If-Match`."""
    hub.identities.remove(identity_key(request), if_match(request))


async def list_modules(hub: IotHub, request: Request) -> list[JsonObject]:
    """`GET /devices/{id}/modules`: 200 with an array of identities."""
    return hub.identities.list_modules(request.names["device_id"])


_MODULE = "/devices/{device_id}/modules/{module_id}"

ROUTES = tuple(
    Route(verb, path, operation, handler, error_form=module_body)
    for verb, path, operation, handler in (
        ("GET", "/devices/{device_id}/modules", Operation.READ_IDENTITY, list_modules),
        ("GET", _MODULE, Operation.READ_IDENTITY, get_module),
        ("PUT", _MODULE, Operation.WRITE_IDENTITY, put_module),
        ("DELETE", _MODULE, Operation.WRITE_IDENTITY, delete_module),
    )
)
