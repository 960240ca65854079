"""Device identities: `/devices` (IoT Hub docs: identity registry), one by one and in bulk."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.responses import json_response, tagged_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid, BulkRegistryOperationFailure
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def get_device(hub: IotHub, request: Request) -> Response:
    """`GET /devices/{id}`: 200 with the identity."""
    return tagged_response(hub.identities.get(identity_key(request)))


async def put_device(hub: IotHub, request: Request) -> Response:
    """`PUT /devices/{id}`: create it, or with `If-Match` update it; both return 200."""
    body = await read_json(request)
    return tagged_response(hub.identities.put(identity_key(request), body, if_match(request)))


async def delete_device(hub: IotHub, request: Request) -> None:
    """`DELETE /devices/{id}`: 204; needs `If-Match`."""
    hub.identities.remove(identity_key(request), if_match(request))


async def list_devices(hub: IotHub, request: Request) -> list[JsonObject]:
    """`GET /devices?top=n`: 200 with an array of identities."""
    top = request.query.get("top")
    if top is None:
        return hub.identities.list_devices()
    digits = top.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ArgumentInvalid(f"Invalid top: {top}. Use a whole number")
    return hub.identities.list_devices(int(top[:10]))


async def change_devices(hub: IotHub, request: Request) -> Response:
    """`POST /devices`: create, update and delete devices and modules.

    200, or 400 with the same body if an item failed. The other items are applied in both cases.
    """
    result = hub.bulk.run(await read_json(request))
    if result["isSuccessful"]:
        return json_response(result)
    # With this header, the SDK for C# does not parse the body as an error.
    error = BulkRegistryOperationFailure()
    return json_response(result, status=error.status, headers={"iothub-errorcode": error.name})


ROUTES = (
    Route("GET", "/devices", Operation.READ_IDENTITY, list_devices),
    Route("POST", "/devices", Operation.WRITE_IDENTITY, change_devices),
    Route("GET", "/devices/{device_id}", Operation.READ_IDENTITY, get_device),
    Route("PUT", "/devices/{device_id}", Operation.WRITE_IDENTITY, put_device),
    Route("DELETE", "/devices/{device_id}", Operation.WRITE_IDENTITY, delete_device),
)
