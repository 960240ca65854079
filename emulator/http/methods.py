"""Direct methods: `/twins/{id}/methods` (IoT Hub docs: direct methods)."""

from __future__ import annotations

from aiohttp import web

from emulator.http.app import Route, json_response, read_json
from emulator.hub.access import Right
from emulator.hub.errors import nested_body
from emulator.hub.hub import IotHub
from emulator.hub.identities import IdentityKey


async def invoke_method(hub: IotHub, request: web.Request) -> web.Response:
    """`POST /twins/{id}/methods`: 200 with `{"status", "payload"}`, as the device chose them."""
    key = IdentityKey(request.match_info["device_id"])
    result = await hub.invoke_method(key, await read_json(request))
    return json_response({"status": result.status, "payload": result.payload})


ROUTES = (
    Route(
        "POST",
        "/twins/{device_id}/methods",
        Right.SERVICE_CONNECT,
        invoke_method,
        error_form=nested_body,
    ),
)
