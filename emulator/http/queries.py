"""Queries, with answers in pages: `/devices/query`, `/jobs/v2/query` (IoT Hub docs: query language,
schedule jobs).
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.pages import page_request, page_response
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.hub import IotHub

_QUERY = members.Form("query")


async def query(hub: IotHub, request: Request) -> Response:
    """`POST /devices/query`, with `{"query": "SELECT …"}`: 200 with an array of rows."""
    text = members.text(members.document(await read_json(request), _QUERY), "query")
    if text is None:
        raise ArgumentInvalid("BadRequest: the body has no query")
    size, continuation = page_request(request, limits.QUERY_PAGE)
    return page_response(await hub.queries.run(text, size=size, continuation=continuation))


async def query_jobs(hub: IotHub, request: Request) -> Response:
    """`GET /jobs/v2/query?jobType=&jobStatus=`: 200 with an array of scheduled jobs.

    In the swagger, an object contains the array. A real hub sends the array itself, and the paging
    in headers, as the SDKs for Node and C# expect.
    """
    size, continuation = page_request(request, limits.QUERY_PAGE)
    kind, status = request.query.get("jobType", ""), request.query.get("jobStatus", "")
    return page_response(
        await hub.jobs.query(kind=kind, status=status, size=size, continuation=continuation)
    )


ROUTES = (
    Route("POST", "/devices/query", Operation.QUERY, query),
    Route("GET", "/jobs/v2/query", Operation.USE_JOB, query_jobs),
)
