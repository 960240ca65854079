"""Device identities: `/devices` (IoT Hub docs: identity registry), one by one and in bulk."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.responses import json_response, no_content
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid, BulkRegistryOperationFailure
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_device(hub: IotHub, request: Request) -> Response:
    """`GET /devices/{id}`: 200 with the identity."""
    return _device_response(hub.identities.get(identity_key(request)))


async def put_device(hub: IotHub, request: Request) -> Response:
    """`PUT /devices/{id}`: create it, or with `If-Match` update it; 200 either way."""
    body = await read_json(request)
    return _device_response(hub.identities.put(identity_key(request), body, if_match(request)))


async def delete_device(hub: IotHub, request: Request) -> Response:
    """`DELETE /devices/{id}`: 204; needs `If-Match`."""
    hub.identities.remove(identity_key(request), if_match(request))
    return no_content()


async def list_devices(hub: IotHub, request: Request) -> Response:
    """`GET /devices?top=n`: 200 with an array of identities."""
    top = request.query.get("top")
    if top is None:
        return json_response(hub.identities.list_devices())
    digits = top.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ArgumentInvalid(f"top is not a number: {top}")
    return json_response(hub.identities.list_devices(int(top[:10])))


async def change_devices(hub: IotHub, request: Request) -> Response:
    """`POST /devices`: create, update and delete devices and modules; 200, or 400 with the same
    body if one of them was refused. The others are done all the same.
    """
    result = hub.bulk.run(await read_json(request))
    if result["isSuccessful"]:
        return json_response(result)
    # By the header the SDK for C# knows that this body is no error's.
    error = BulkRegistryOperationFailure()
    return json_response(result, status=error.status, headers={"iothub-errorcode": error.name})


def _device_response(device: JsonObject) -> Response:
    return json_response(device, headers={"ETag": f'"{device["etag"]}"'})


ROUTES = (
    Route("GET", "/devices", Operation.READ_IDENTITY, list_devices),
    Route("POST", "/devices", Operation.WRITE_IDENTITY, change_devices),
    Route("GET", "/devices/{device_id}", Operation.READ_IDENTITY, get_device),
    Route("PUT", "/devices/{device_id}", Operation.WRITE_IDENTITY, put_device),
    Route("DELETE", "/devices/{device_id}", Operation.WRITE_IDENTITY, delete_device),
)
