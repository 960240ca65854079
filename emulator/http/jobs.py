"""Scheduled jobs: `/jobs/v2` (IoT Hub docs: schedule jobs)."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.paging import page_request, page_response
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def put_job(hub: IotHub, request: Request) -> JsonObject:
    """`PUT`: create a job; 200 with its id, its type and its status, queued."""
    body = await read_json(request)
    return hub.jobs.create(request.names["job_id"], body)


async def get_job(hub: IotHub, request: Request) -> JsonObject:
    """`GET`: 200 with the job, even if it is unknown."""
    return hub.jobs.get(request.names["job_id"])


async def cancel_job(hub: IotHub, request: Request) -> JsonObject:
    """`POST /jobs/v2/{id}/cancel`: 200 with the job."""
    return hub.jobs.cancel(request.names["job_id"])


async def query_jobs(hub: IotHub, request: Request) -> Response:
    """`GET /jobs/v2/query?jobType=&jobStatus=`: 200 with an array of jobs, in pages.

    In the swagger, an object contains the array. A real hub sends the array itself, and the paging
    in headers, as the SDKs for Node and C# expect.
    """
    size, continuation = page_request(request)
    page = hub.jobs.query(
        kind=request.query.get("jobType", ""),
        status=request.query.get("jobStatus", ""),
        size=size,
        continuation=continuation,
    )
    return page_response(page)


# The list is first, because its path is also the path of a job with the id `query`.
ROUTES = tuple(
    Route(verb, path, Operation.USE_JOB, handler)
    for verb, path, handler in (
        ("GET", "/jobs/v2/query", query_jobs),
        ("GET", "/jobs/v2/{job_id}", get_job),
        ("PUT", "/jobs/v2/{job_id}", put_job),
        ("POST", "/jobs/v2/{job_id}/cancel", cancel_job),
    )
)
