"""Twins and direct methods: `/twins/{id}`, `/twins/{id}/modules/{id}` (IoT Hub docs: twins, direct
methods). Digital twins and their commands: `/digitaltwins/{id}` (IoT Plug and Play docs).

A real hub sends no ETag header for a twin that is not a digital twin.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiohttp.web_response import Response

from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.responses import json_response, nested_body, twin_body
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid, DeserializationError
from emulator.hub.core.json import JsonObject, WrittenJson
from emulator.hub.hub import IotHub
from emulator.hub.registry import digital_twins

_TIME_OUTS = ("responseTimeoutInSeconds", "connectTimeoutInSeconds")


async def get_twin(hub: IotHub, request: Request) -> JsonObject:
    """`GET`: 200 with the twin."""
    return hub.twins.get(identity_key(request))


async def patch_twin(hub: IotHub, request: Request) -> JsonObject:
    """`PATCH`: merge tags and desired properties; 200 with the twin."""
    return hub.twins.patch(identity_key(request), await _read_twin(request), if_match(request))


async def replace_twin(hub: IotHub, request: Request) -> JsonObject:
    """`PUT`: replace tags and desired properties; 200 with the twin."""
    return hub.twins.replace(identity_key(request), await _read_twin(request), if_match(request))


async def _read_twin(request: Request) -> Any:
    try:
        return await read_json(request)
    except DeserializationError as error:
        # The start of the text is a real hub's.
        text = f"Provided json is not a valid 'tags' or 'properties' object: {error.text}"
        raise ArgumentInvalid(text) from None


async def invoke_method(hub: IotHub, request: Request) -> JsonObject:
    """`POST`: 200 with the `{"status", "payload"}` of the device."""
    result = await hub.methods.invoke(identity_key(request), await read_json(request))
    return {"status": result.status, "payload": WrittenJson(result.payload)}


async def get_digital_twin(hub: IotHub, request: Request) -> Response:
    """`GET`: 200 with the digital twin; the ETag header is the etag of the twin."""
    document, etag = hub.digital_twins.get(request.names["device_id"])
    return json_response(document, headers={"ETag": f'"{etag}"'})


async def update_digital_twin(hub: IotHub, request: Request) -> Response:
    """`PATCH`, with a JSON patch: 202 without a body, with ETag and Location headers."""
    device_id = request.names["device_id"]
    etag = hub.digital_twins.update(device_id, await read_json(request), if_match(request))
    # The form of a real hub is unknown. A location without a host is valid for every host name.
    location = f"/digitaltwins/{quote(device_id, safe='')}"
    return Response(status=202, headers={"ETag": f'"{etag}"', "Location": location})


async def invoke_command(hub: IotHub, request: Request) -> Response:
    """`POST`: 200 with the answer of the device, and its status in `x-ms-command-statuscode`.

    The body is the payload, and can be empty. The time-outs of the direct method are in the query.
    """
    result = await hub.methods.invoke(
        identity_key(request),
        digital_twins.command(
            request.names["command"],
            request.names.get("component"),
            await read_json(request, optional=True),
            {name: request.query[name] for name in _TIME_OUTS if name in request.query},
        ),
    )
    headers = {"x-ms-command-statuscode": str(result.status)}
    return json_response(WrittenJson(result.payload), headers=headers)


_TWIN = "/twins/{device_id}"
_MODULE_TWIN = _TWIN + "/modules/{module_id}"
_DIGITAL_TWIN = "/digitaltwins/{device_id}"
_COMPONENT = _DIGITAL_TWIN + "/components/{component}"
_COMMAND = "/commands/{command}"
_READ, _UPDATE, _INVOKE = Operation.READ_TWIN, Operation.UPDATE_TWIN, Operation.INVOKE_METHOD

ROUTES = (
    Route("GET", _TWIN, _READ, get_twin, twin_body),
    Route("PATCH", _TWIN, _UPDATE, patch_twin, twin_body),
    Route("PUT", _TWIN, _UPDATE, replace_twin, twin_body),
    Route("POST", _TWIN + "/methods", _INVOKE, invoke_method, nested_body),
    Route("GET", _MODULE_TWIN, _READ, get_twin, twin_body),
    Route("PATCH", _MODULE_TWIN, _UPDATE, patch_twin, twin_body),
    Route("PUT", _MODULE_TWIN, _UPDATE, replace_twin, twin_body),
    Route("POST", _MODULE_TWIN + "/methods", _INVOKE, invoke_method, nested_body),
    Route("GET", _DIGITAL_TWIN, _READ, get_digital_twin),
    Route("PATCH", _DIGITAL_TWIN, _UPDATE, update_digital_twin),
    Route("POST", _DIGITAL_TWIN + _COMMAND, Operation.INVOKE_COMMAND, invoke_command, nested_body),
    Route("POST", _COMPONENT + _COMMAND, Operation.INVOKE_COMMAND, invoke_command, nested_body),
)
