"""Twins of devices and modules: `/twins/{id}`, `/twins/{id}/modules/{id}` (IoT Hub docs: twins).

A real hub sends no ETag header here.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.server import Request, Route, identity_key, if_match, json_response, read_json
from emulator.hub.access.policies import Right
from emulator.hub.core.errors import twin_message_body
from emulator.hub.hub import IotHub


async def get_twin(hub: IotHub, request: Request) -> Response:
    """`GET`: 200 with the twin."""
    return json_response(hub.registry.get_twin(identity_key(request)))


async def patch_twin(hub: IotHub, request: Request) -> Response:
    """`PATCH`: merge tags and desired properties; 200 with the twin."""
    body = await read_json(request)
    return json_response(hub.registry.patch_twin(identity_key(request), body, if_match(request)))


async def replace_twin(hub: IotHub, request: Request) -> Response:
    """`PUT`: replace tags and desired properties; 200 with the twin."""
    body = await read_json(request)
    return json_response(hub.registry.replace_twin(identity_key(request), body, if_match(request)))


ROUTES = tuple(
    Route(verb, path, Right.SERVICE_CONNECT, handler, error_form=twin_message_body)
    for path in ("/twins/{device_id}", "/twins/{device_id}/modules/{module_id}")
    for verb, handler in (("GET", get_twin), ("PATCH", patch_twin), ("PUT", replace_twin))
)
