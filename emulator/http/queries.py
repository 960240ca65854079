"""Queries, with answers in pages: `/devices/query`, `/jobs/v2/query` (IoT Hub docs: query language,
schedule jobs).

The size and the place of a page are in the headers of the request; the place of the next page is in
the headers of the answer.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, read_json
from emulator.http.responses import JSON
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits, members
from emulator.hub.core.digits import whole_number
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.hub import IotHub
from emulator.hub.query.continuations import Page

_QUERY = members.Form("query")


async def query(hub: IotHub, request: Request) -> Response:
    """`POST /devices/query`, with `{"query": "SELECT …"}`: 200 with an array of rows."""
    text = members.text(members.document(await read_json(request), _QUERY), "query")
    if text is None:
        raise ArgumentInvalid("BadRequest: the body has no query")
    size, continuation = page_request(request)
    return page_response(await hub.queries.run(text, size=size, continuation=continuation))


async def query_jobs(hub: IotHub, request: Request) -> Response:
    """`GET /jobs/v2/query?jobType=&jobStatus=`: 200 with an array of scheduled jobs.

    In the swagger, an object contains the array. A real hub sends the array itself, and the paging
    in headers, as the SDKs for Node and C# expect.
    """
    size, continuation = page_request(request)
    kind, status = request.query.get("jobType", ""), request.query.get("jobStatus", "")
    return page_response(
        await hub.jobs.query(kind=kind, status=status, size=size, continuation=continuation)
    )


def page_request(request: Request) -> tuple[int, str | None]:
    """Parse `x-ms-max-item-count`, from 1 up, and `x-ms-continuation`.

    Returns:
        The size of the page, at most `limits.QUERY_PAGE` rows, which is also the default; and the
        continuation, None for the first page.

    Raises:
        ArgumentInvalid: the size is invalid.
    """
    text = request.headers.get("x-ms-max-item-count", str(limits.QUERY_PAGE))
    size = whole_number(text)
    if not size:
        raise ArgumentInvalid(f"Invalid x-ms-max-item-count: {text}. Use a number from 1 up")
    return min(size, limits.QUERY_PAGE), request.headers.get("x-ms-continuation") or None


def page_response(page: Page) -> Response:
    """Return the rows of a page; the last page has no `x-ms-continuation`."""
    headers = {"Content-Type": JSON, "x-ms-item-type": page.type}
    if page.continuation is not None:
        headers["x-ms-continuation"] = page.continuation
    return Response(body=b"[%s]" % b",".join(page.rows), headers=headers)


ROUTES = (
    Route("POST", "/devices/query", Operation.QUERY, query),
    Route("GET", "/jobs/v2/query", Operation.USE_JOB, query_jobs),
)
