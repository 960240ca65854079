"""Configurations: `/configurations` (IoT Hub docs: automatic device management), and the modules of
one IoT Edge device.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, if_match, read_json
from emulator.http.responses import json_response, no_content
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_configuration(hub: IotHub, request: Request) -> Response:
    """`GET /configurations/{id}`: 200 with the configuration."""
    return _configuration_response(hub.configurations.get(_id(request)))


async def put_configuration(hub: IotHub, request: Request) -> Response:
    """`PUT /configurations/{id}`: create it, or with a quoted `If-Match` update it; 200."""
    body = await read_json(request)
    configuration = await hub.configurations.put(_id(request), body, _quoted_if_match(request))
    return _configuration_response(configuration)


async def delete_configuration(hub: IotHub, request: Request) -> Response:
    """`DELETE /configurations/{id}`: 204."""
    await hub.configurations.delete(_id(request), if_match(request))
    return no_content()


async def list_configurations(hub: IotHub, request: Request) -> Response:
    """`GET /configurations`: 200 with an array of all; `top` is ignored (seen on a real hub)."""
    return json_response(hub.configurations.list())


async def check_queries(hub: IotHub, request: Request) -> Response:
    """`POST /configurations/testQueries`: 200, with what is wrong in the body."""
    return json_response(hub.configurations.check_queries(await read_json(request)))


async def apply_content(hub: IotHub, request: Request) -> Response:
    """`POST /devices/{id}/applyConfigurationContent`: 204."""
    hub.configurations.apply_content(request.names["device_id"], await read_json(request))
    return no_content()


def _id(request: Request) -> str:
    configuration_id: str = request.names["configuration_id"]
    return configuration_id


def _quoted_if_match(request: Request) -> IfMatch:
    """Read a precondition: one that is neither quoted nor `*` isn't heard (seen on a real hub)."""
    header = request.headers.get("If-Match", "").strip()
    return if_match(request) if header == "*" or header.startswith('"') else IfMatch(None)


def _configuration_response(configuration: JsonObject) -> Response:
    return json_response(configuration, headers={"ETag": f'"{configuration["etag"]}"'})


_READ, _WRITE = Operation.READ_CONFIGURATION, Operation.WRITE_CONFIGURATION

ROUTES = (
    Route("GET", "/configurations", _READ, list_configurations),
    Route("POST", "/configurations/testQueries", _READ, check_queries),
    Route("GET", "/configurations/{configuration_id}", _READ, get_configuration),
    Route("PUT", "/configurations/{configuration_id}", _WRITE, put_configuration),
    Route("DELETE", "/configurations/{configuration_id}", _WRITE, delete_configuration),
    Route("POST", "/devices/{device_id}/applyConfigurationContent", _WRITE, apply_content),
)
