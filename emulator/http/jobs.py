"""Scheduled jobs: `/jobs/v2` (IoT Hub docs: schedule jobs)."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.paging import page_request, page_response
from emulator.http.requests import Request, read_json
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub


async def put_job(hub: IotHub, request: Request) -> Response:
    """`PUT`: make a job; 200 with its id, its type and its status, queued."""
    body = await read_json(request)
    return json_response(hub.jobs.create(request.names["job_id"], body))


async def get_job(hub: IotHub, request: Request) -> Response:
    """`GET`: 200 with the job, also for one that is not known."""
    return json_response(hub.jobs.get(request.names["job_id"]))


async def cancel_job(hub: IotHub, request: Request) -> Response:
    """`POST /jobs/v2/{id}/cancel`: 200 with the job."""
    return json_response(hub.jobs.cancel(request.names["job_id"]))


async def query_jobs(hub: IotHub, request: Request) -> Response:
    """`GET /jobs/v2/query?jobType=&jobStatus=`: 200 with an array of jobs, a page of them.

    The API's description promises an object with the array in it; a real hub sends the bare array,
    with its paging in headers, as the SDKs for Node and C# read it.
    """
    size, continuation = page_request(request)
    page = hub.jobs.query(
        kind=request.query.get("jobType", ""),
        status=request.query.get("jobStatus", ""),
        size=size,
        continuation=continuation,
    )
    return page_response(page)


# The list comes first: its path is also the one of a job with the id `query`.
ROUTES = tuple(
    Route(verb, path, Operation.USE_JOB, handler)
    for verb, path, handler in (
        ("GET", "/jobs/v2/query", query_jobs),
        ("GET", "/jobs/v2/{job_id}", get_job),
        ("PUT", "/jobs/v2/{job_id}", put_job),
        ("POST", "/jobs/v2/{job_id}/cancel", cancel_job),
    )
)
