"""Digital twins: `/digitaltwins/{id}`, and their commands (IoT Plug and Play docs)."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp.web_response import Response

from emulator.http.errors import nested_body
from emulator.http.requests import Request, identity_key, if_match, read_json
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub
from emulator.hub.registry import digital_twins

_TIME_OUTS = ("responseTimeoutInSeconds", "connectTimeoutInSeconds")


async def get_digital_twin(hub: IotHub, request: Request) -> Response:
    """`GET`: 200 with the digital twin; the ETag header is the etag of the twin."""
    document, etag = hub.digital_twins.get(request.names["device_id"])
    return json_response(document, headers={"ETag": f'"{etag}"'})


async def update_digital_twin(hub: IotHub, request: Request) -> Response:
    """`PATCH`, with a JSON patch: 202 without a body, with ETag and Location headers."""
    patch = await read_json(request)
    device_id = request.names["device_id"]
    etag = hub.digital_twins.update(device_id, patch, if_match(request))
    # The form of a real hub is unknown. A location without a host is valid for every host name.
    location = f"/digitaltwins/{quote(device_id, safe='')}"
    return Response(status=202, headers={"ETag": f'"{etag}"', "Location": location})


async def invoke_command(hub: IotHub, request: Request) -> Response:
    """`POST`: 200 with the answer of the device, and its status in `x-ms-command-statuscode`.

    The body is the payload, and can be empty. The time-outs of the direct method are in the query.
    """
    call = digital_twins.command(
        request.names["command"],
        request.names.get("component"),
        await read_json(request, optional=True),
        {name: _number(request.query[name]) for name in _TIME_OUTS if name in request.query},
    )
    result = await hub.methods.invoke(identity_key(request), call)
    return json_response(result.payload, headers={"x-ms-command-statuscode": str(result.status)})


def _number(text: str) -> int | str:
    """Parse an integer; the hub refuses another text as an invalid time-out."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 10 else text


_TWIN = "/digitaltwins/{device_id}"

ROUTES = (
    Route("GET", _TWIN, Operation.READ_TWIN, get_digital_twin),
    Route("PATCH", _TWIN, Operation.UPDATE_TWIN, update_digital_twin),
    *(
        Route("POST", _TWIN + path, Operation.INVOKE_METHOD, invoke_command, error_form=nested_body)
        for path in ("/commands/{command}", "/components/{component}/commands/{command}")
    ),
)
