"""Device twins: `/twins` (IoT Hub docs: device twins). A real hub sends no ETag header here."""

from __future__ import annotations

from aiohttp import web

from emulator.http.app import Route, json_response, read_json
from emulator.hub.access import Right
from emulator.hub.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities import IdentityKey


async def get_twin(hub: IotHub, request: web.Request) -> web.Response:
    """`GET /twins/{id}`: 200 with the twin."""
    return json_response(hub.get_twin(_key(request)))


async def patch_twin(hub: IotHub, request: web.Request) -> web.Response:
    """`PATCH /twins/{id}`: merge tags and desired properties; 200 with the twin."""
    body = await read_json(request)
    return json_response(hub.patch_twin(_key(request), body, _if_match(request)))


async def replace_twin(hub: IotHub, request: web.Request) -> web.Response:
    """`PUT /twins/{id}`: replace tags and desired properties; 200 with the twin."""
    body = await read_json(request)
    return json_response(hub.replace_twin(_key(request), body, _if_match(request)))


def _key(request: web.Request) -> IdentityKey:
    return IdentityKey(request.match_info["device_id"])


def _if_match(request: web.Request) -> IfMatch:
    return IfMatch.parse(request.headers.get("If-Match"))


ROUTES = (
    Route("GET", "/twins/{device_id}", Right.SERVICE_CONNECT, get_twin),
    Route("PATCH", "/twins/{device_id}", Right.SERVICE_CONNECT, patch_twin),
    Route("PUT", "/twins/{device_id}", Right.SERVICE_CONNECT, replace_twin),
)
