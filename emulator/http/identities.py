"""Identities: `/devices`, `/devices/{id}/modules` and `/statistics` (IoT Hub docs: identity
registry, module twins; swagger of the service API).

On the routes of modules, a real hub sends no ETag header, and errors have a special form (seen
there). Its statistics are late (seen there); here they are current.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.responses import json_response, module_body, tagged_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.digits import whole_number
from emulator.hub.core.errors import (
    ArgumentInvalid,
    BulkRegenerateDeviceKeyOperationFailure,
    BulkRegistryOperationFailure,
)
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_device(hub: IotHub, request: Request) -> Response:
    """`GET /devices/{id}`: 200 with the identity."""
    return tagged_response(await get_module(hub, request))


async def put_device(hub: IotHub, request: Request) -> Response:
    """`PUT /devices/{id}`: create it, or with `If-Match` update it; both return 200."""
    return tagged_response(await put_module(hub, request))


async def get_module(hub: IotHub, request: Request) -> JsonObject:
    """`GET /devices/{id}/modules/{id}`: 200 with the identity."""
    return hub.identities.get(identity_key(request))


async def put_module(hub: IotHub, request: Request) -> JsonObject:
    """`PUT /devices/{id}/modules/{id}`: create it, or with `If-Match` update it; 200."""
    return hub.identities.put(identity_key(request), await read_json(request), if_match(request))


async def delete_identity(hub: IotHub, request: Request) -> None:
    """`DELETE` of a device or module: 204; needs `If-Match`."""
    hub.identities.remove(identity_key(request), if_match(request))


async def list_devices(hub: IotHub, request: Request) -> list[JsonObject]:
    """`GET /devices?top=n`: 200 with an array of identities."""
    top = request.query.get("top")
    if top is None:
        return await hub.identities.list_devices()
    number = whole_number(top.removeprefix("-"))
    if number is None:
        raise ArgumentInvalid(f"Invalid top: {top}. Use a whole number")
    return await hub.identities.list_devices(-number if top.startswith("-") else number)


async def list_modules(hub: IotHub, request: Request) -> list[JsonObject]:
    """`GET /devices/{id}/modules`: 200 with an array of identities."""
    return hub.identities.list_modules(request.names["device_id"])


async def change_devices(hub: IotHub, request: Request) -> Response:
    """`POST /devices`: create, update and delete devices and modules.

    200, or 400 with the same body if an item failed. The other items are applied in both cases.
    """
    result = await hub.bulk.run(await read_json(request))
    if result["isSuccessful"]:
        return json_response(result)
    # With this header, the SDK for C# does not parse the body as an error.
    error = BulkRegistryOperationFailure()
    return json_response(result, status=error.status, headers={"iothub-errorcode": error.name})


async def regenerate_keys(hub: IotHub, request: Request) -> Response:
    """`POST /devices/keys/regenerate`: replace keys of devices and modules.

    200 if all are replaced, 207 if some are, 400 if none is; with one and the same body.
    """
    result = hub.key_rotation.run(await read_json(request))
    if not result["errors"]:
        return json_response(result)
    if result["rotatedKeys"]:
        return json_response(result, status=207)
    error = BulkRegenerateDeviceKeyOperationFailure()
    return json_response(result, status=error.status, headers={"iothub-errorcode": error.name})


async def get_device_statistics(hub: IotHub, _: Request) -> JsonObject:
    """`GET /statistics/devices`: 200 with the number of devices."""
    return await hub.identities.device_statistics()


async def get_service_statistics(hub: IotHub, _: Request) -> JsonObject:
    """`GET /statistics/service`: 200 with the number of connected devices."""
    return hub.identities.service_statistics()


_READ, _WRITE = Operation.READ_IDENTITY, Operation.WRITE_IDENTITY
_DEVICE = "/devices/{device_id}"
_MODULE = _DEVICE + "/modules/{module_id}"

ROUTES = (
    Route("GET", "/devices", _READ, list_devices),
    Route("POST", "/devices", _WRITE, change_devices),
    Route("POST", "/devices/keys/regenerate", _WRITE, regenerate_keys),
    Route("GET", _DEVICE, _READ, get_device),
    Route("PUT", _DEVICE, _WRITE, put_device),
    Route("DELETE", _DEVICE, _WRITE, delete_identity),
    Route("GET", _DEVICE + "/modules", _READ, list_modules, error_form=module_body),
    Route("GET", _MODULE, _READ, get_module, error_form=module_body),
    Route("PUT", _MODULE, _WRITE, put_module, error_form=module_body),
    Route("DELETE", _MODULE, _WRITE, delete_identity, error_form=module_body),
    Route("GET", "/statistics/devices", Operation.READ_STATISTICS, get_device_statistics),
    Route("GET", "/statistics/service", Operation.READ_STATISTICS, get_service_statistics),
)
