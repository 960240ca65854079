"""Direct methods: `/twins/{id}/methods`, and a module's (IoT Hub docs: direct methods)."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.errors import nested_body
from emulator.http.requests import Request, identity_key, read_json
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub


async def invoke_method(hub: IotHub, request: Request) -> Response:
    """`POST`: 200 with `{"status", "payload"}`, as the device chose them."""
    result = await hub.methods.invoke(identity_key(request), await read_json(request))
    return json_response({"status": result.status, "payload": result.payload})


ROUTES = tuple(
    Route("POST", path, Operation.INVOKE_METHOD, invoke_method, error_form=nested_body)
    for path in ("/twins/{device_id}/methods", "/twins/{device_id}/modules/{module_id}/methods")
)
