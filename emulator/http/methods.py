"""Direct methods: `/twins/{id}/methods`, and a module's (IoT Hub docs: direct methods)."""

from __future__ import annotations

from emulator.http.errors import nested_body
from emulator.http.requests import Request, identity_key, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def invoke_method(hub: IotHub, request: Request) -> JsonObject:
    """`POST`: 200 with the `{"status", "payload"}` of the device."""
    result = await hub.methods.invoke(identity_key(request), await read_json(request))
    return {"status": result.status, "payload": result.payload}


ROUTES = tuple(
    Route("POST", path, Operation.INVOKE_METHOD, invoke_method, error_form=nested_body)
    for path in ("/twins/{device_id}/methods", "/twins/{device_id}/modules/{module_id}/methods")
)
