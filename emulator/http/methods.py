"""Direct methods: `/twins/{id}/methods`, and a module's (IoT Hub docs: direct methods)."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.server import Request, Route, identity_key, json_response, read_json
from emulator.hub.access.policies import Right
from emulator.hub.core.errors import nested_body
from emulator.hub.hub import IotHub


async def invoke_method(hub: IotHub, request: Request) -> Response:
    """`POST`: 200 with `{"status", "payload"}`, as the device chose them."""
    result = await hub.invoke_method(identity_key(request), await read_json(request))
    return json_response({"status": result.status, "payload": result.payload})


ROUTES = tuple(
    Route("POST", path, Right.SERVICE_CONNECT, invoke_method, error_form=nested_body)
    for path in ("/twins/{device_id}/methods", "/twins/{device_id}/modules/{module_id}/methods")
)
