"""Faults on demand: `/_emulator/faults`."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.admin.parameters import check_parameters, number
from emulator.http.requests import Request, read_json
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.faults.fault import Fault
from emulator.hub.hub import IotHub


async def list_faults(hub: IotHub, request: Request) -> list[JsonObject]:
    """`GET /_emulator/faults`: 200 with an array of the faults that are on, with id and hits."""
    check_parameters(request)
    return hub.faults.list()


async def add_fault(hub: IotHub, request: Request) -> Response:
    """`POST /_emulator/faults`: turn a fault on; 201 with `{"id"}`. The body is a fault."""
    check_parameters(request)
    fault = Fault.parse(await read_json(request))
    return json_response({"id": hub.faults.add(fault)}, status=201)


async def clear_faults(hub: IotHub, request: Request) -> None:
    """`DELETE /_emulator/faults`: turn all faults off; 204."""
    check_parameters(request)
    hub.faults.clear()


async def remove_fault(hub: IotHub, request: Request) -> None:
    """`DELETE /_emulator/faults/{id}`: turn a fault off; 204, or 400 if it has ended."""
    check_parameters(request)
    hub.faults.remove(number("id of a fault", request.names["fault_id"]))


_FAULTS = "/_emulator/faults"
_FAULT = _FAULTS + "/{fault_id}"

ROUTES = tuple(
    Route(verb, path, Operation.MANAGE_FAULTS, handler, versioned=False)
    for verb, path, handler in (
        ("GET", _FAULTS, list_faults),
        ("POST", _FAULTS, add_fault),
        ("DELETE", _FAULTS, clear_faults),
        ("DELETE", _FAULT, remove_fault),
    )
)
