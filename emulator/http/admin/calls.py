"""The latest calls of direct methods: `/_emulator/calls`."""

from __future__ import annotations

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def read_calls(hub: IotHub, request: Request) -> list[JsonObject]:
    """`GET /_emulator/calls?device=id`: 200 with the calls that devices received, oldest first."""
    check_parameters(request, "device")
    device_id = request.query.get("device")
    calls = hub.method_calls.list()
    return [each.document() for each in calls if device_id in (None, each.key.device_id)]


ROUTES = (Route("GET", "/_emulator/calls", Operation.OBSERVE, read_calls, versioned=False),)
