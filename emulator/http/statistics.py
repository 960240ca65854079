"""Statistics: `/statistics/devices`, `/statistics/service` (swagger of the service API).

On a real hub the numbers are late (seen there); here they are current.
"""

from __future__ import annotations

from emulator.http.requests import Request
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_device_statistics(hub: IotHub, _: Request) -> JsonObject:
    """`GET /statistics/devices`: 200 with the number of devices."""
    return hub.identities.device_statistics()


async def get_service_statistics(hub: IotHub, _: Request) -> JsonObject:
    """`GET /statistics/service`: 200 with the number of connected devices."""
    return hub.identities.service_statistics()


ROUTES = (
    Route("GET", "/statistics/devices", Operation.READ_STATISTICS, get_device_statistics),
    Route("GET", "/statistics/service", Operation.READ_STATISTICS, get_service_statistics),
)
