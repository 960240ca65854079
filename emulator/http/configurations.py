"""Configurations: `/configurations`, and the content of an IoT Edge device (IoT Hub docs: automatic
device management).
"""

from __future__ import annotations

from aiohttp.web_response import Response, StreamResponse

from emulator.http.requests import Request, if_match, read_json
from emulator.http.responses import stream_array, tagged_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.hub import IotHub


async def get_configuration(hub: IotHub, request: Request) -> Response:
    """`GET /configurations/{id}`: 200 with the configuration."""
    return tagged_response(await hub.configurations.get(request.names["configuration_id"]))


async def put_configuration(hub: IotHub, request: Request) -> Response:
    """`PUT /configurations/{id}`: create it, or with a quoted `If-Match` update it; 200."""
    body = await read_json(request)
    configuration_id, condition = request.names["configuration_id"], _quoted_if_match(request)
    return tagged_response(await hub.configurations.put(configuration_id, body, condition))


async def delete_configuration(hub: IotHub, request: Request) -> None:
    """`DELETE /configurations/{id}`: 204."""
    await hub.configurations.delete(request.names["configuration_id"], if_match(request))


async def list_configurations(hub: IotHub, request: Request) -> StreamResponse:
    """`GET /configurations`: 200 with an array of all; `top` is ignored (seen on a real hub)."""
    return await stream_array(request, (dumps(each) async for each in hub.configurations.all()))


async def check_queries(hub: IotHub, request: Request) -> JsonObject:
    """`POST /configurations/testQueries`: 200 with the errors in the body."""
    return await hub.configurations.check_queries(await read_json(request))


async def apply_content(hub: IotHub, request: Request) -> None:
    """`POST /devices/{id}/applyConfigurationContent`: 204."""
    device_id, body = request.names["device_id"], await read_json(request)
    await hub.configurations.apply_content(device_id, body)


def _quoted_if_match(request: Request) -> IfMatch:
    """Parse the condition; ignore it if it is neither quoted nor `*` (seen on a real hub)."""
    header = request.headers.get("If-Match", "").strip()
    return if_match(request) if header == "*" or header.startswith('"') else IfMatch(None)


_READ, _WRITE = Operation.READ_CONFIGURATION, Operation.WRITE_CONFIGURATION

ROUTES = (
    Route("GET", "/configurations", _READ, list_configurations),
    Route("POST", "/configurations/testQueries", _READ, check_queries),
    Route("GET", "/configurations/{configuration_id}", _READ, get_configuration),
    Route("PUT", "/configurations/{configuration_id}", _WRITE, put_configuration),
    Route("DELETE", "/configurations/{configuration_id}", _WRITE, delete_configuration),
    Route("POST", "/devices/{device_id}/applyConfigurationContent", _WRITE, apply_content),
)
