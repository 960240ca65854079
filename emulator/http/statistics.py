"""Statistics: `/statistics/devices`, `/statistics/service` (swagger of the service API).

On a real hub the counts lag behind (seen there); here they are of the moment.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub


async def get_device_statistics(hub: IotHub, _: Request) -> Response:
    """`GET /statistics/devices`: 200 with how many devices there are."""
    return json_response(hub.identities.device_statistics())


async def get_service_statistics(hub: IotHub, _: Request) -> Response:
    """`GET /statistics/service`: 200 with how many devices are connected."""
    return json_response(hub.identities.service_statistics())


ROUTES = (
    Route("GET", "/statistics/devices", Operation.READ_STATISTICS, get_device_statistics),
    Route("GET", "/statistics/service", Operation.READ_STATISTICS, get_service_statistics),
)
