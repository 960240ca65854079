"""The description of the routes below `/_emulator/`, in the form of OpenAPI."""

from __future__ import annotations

import functools
from pathlib import Path

from aiohttp.web_response import Response

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request
from emulator.http.responses import JSON
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub


@functools.cache
def document() -> bytes:
    """Return the OpenAPI document, which is a file of the package."""
    return Path(__file__).with_name("openapi.json").read_bytes()


async def read_openapi(_: IotHub, request: Request) -> Response:
    """`GET /_emulator/openapi.json`: 200 with the OpenAPI document."""
    check_parameters(request)
    return Response(body=document(), headers={"Content-Type": JSON})


ROUTES = (
    Route("GET", "/_emulator/openapi.json", Operation.OBSERVE, read_openapi, versioned=False),
)
