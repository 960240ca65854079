"""Twins of devices and modules: `/twins/{id}`, `/twins/{id}/modules/{id}` (IoT Hub docs: twins).

A real hub sends no ETag header here.
"""

from __future__ import annotations

from emulator.http.errors import twin_body
from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_twin(hub: IotHub, request: Request) -> JsonObject:
    """`GET`: 200 with the twin."""
    return hub.twins.get(identity_key(request))


async def patch_twin(hub: IotHub, request: Request) -> JsonObject:
    """`PATCH`: merge tags and desired properties; 200 with the twin."""
    body = await read_json(request)
    return hub.twins.patch(identity_key(request), body, if_match(request))


async def replace_twin(hub: IotHub, request: Request) -> JsonObject:
    """`PUT`: replace tags and desired properties; 200 with the twin."""
    body = await read_json(request)
    return hub.twins.replace(identity_key(request), body, if_match(request))


ROUTES = tuple(
    Route(verb, path, operation, handler, error_form=twin_body)
    for path in ("/twins/{device_id}", "/twins/{device_id}/modules/{module_id}")
    for verb, operation, handler in (
        ("GET", Operation.READ_TWIN, get_twin),
        ("PATCH", Operation.UPDATE_TWIN, patch_twin),
        ("PUT", Operation.UPDATE_TWIN, replace_twin),
    )
)
