"""Queries: `/devices/query` (IoT Hub docs: query language)."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.paging import page_request, page_response
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.hub import IotHub


async def query(hub: IotHub, request: Request) -> Response:
    """`POST`, with `{"query": "SELECT …"}`: 200 with an array of rows, in pages."""
    text = members.text(members.document(await read_json(request)), "query")
    if text is None:
        raise ArgumentInvalid("BadRequest: the body has no query")
    size, continuation = page_request(request)
    return page_response(hub.queries.run(text, size=size, continuation=continuation))


ROUTES = (Route("POST", "/devices/query", Operation.QUERY, query),)
