"""Statistics: `/statistics/devices`, `/statistics/service` (swagger of the service API).

On a real hub the counts lag behind (seen there); here they are of the moment.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.server import Request, Route, json_response
from emulator.hub.access.policies import Right
from emulator.hub.hub import IotHub


async def get_device_statistics(hub: IotHub, _: Request) -> Response:
    """`GET /statistics/devices`: 200 with how many devices there are."""
    return json_response(hub.registry.device_statistics())


async def get_service_statistics(hub: IotHub, _: Request) -> Response:
    """`GET /statistics/service`: 200 with how many devices are connected."""
    return json_response(hub.registry.service_statistics())


# That ServiceConnect opens them too is not documented: they tell it nothing that a query wouldn't.
_RIGHTS = Right.REGISTRY_READ | Right.SERVICE_CONNECT

ROUTES = (
    Route("GET", "/statistics/devices", _RIGHTS, get_device_statistics),
    Route("GET", "/statistics/service", _RIGHTS, get_service_statistics),
)
