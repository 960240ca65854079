"""Jobs: scheduled jobs at `/jobs/v2`, import and export jobs at `/jobs` (IoT Hub docs: schedule
jobs; import and export identities in bulk).
"""

from __future__ import annotations

from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def put_job(hub: IotHub, request: Request) -> JsonObject:
    """`PUT /jobs/v2/{id}`: create a job; 200 with its id, its type and its status, queued."""
    return hub.jobs.create(request.names["job_id"], await read_json(request))


async def get_job(hub: IotHub, request: Request) -> JsonObject:
    """`GET /jobs/v2/{id}`: 200 with the job, even if it is unknown."""
    return hub.jobs.get(request.names["job_id"])


async def cancel_job(hub: IotHub, request: Request) -> JsonObject:
    """`POST /jobs/v2/{id}/cancel`: 200 with the job."""
    return hub.jobs.cancel(request.names["job_id"])


async def create_transfer(hub: IotHub, request: Request) -> JsonObject:
    """`POST /jobs/create`: create an import or export job; 200 with the job, enqueued."""
    return await hub.transfers.create(await read_json(request))


async def list_transfers(hub: IotHub, _: Request) -> list[JsonObject]:
    """`GET /jobs`: 200 with an array of the import and export jobs."""
    return hub.transfers.list()


async def get_transfer(hub: IotHub, request: Request) -> JsonObject:
    """`GET /jobs/{id}`: 200 with the job."""
    return hub.transfers.get(request.names["job_id"])


async def cancel_transfer(hub: IotHub, request: Request) -> None:
    """`DELETE /jobs/{id}`: cancel the job; 204 (the swagger also has 200)."""
    await hub.transfers.cancel(request.names["job_id"])


ROUTES = (
    Route("GET", "/jobs/v2/{job_id}", Operation.USE_JOB, get_job),
    Route("PUT", "/jobs/v2/{job_id}", Operation.USE_JOB, put_job),
    Route("POST", "/jobs/v2/{job_id}/cancel", Operation.USE_JOB, cancel_job),
    Route("POST", "/jobs/create", Operation.WRITE_TRANSFER, create_transfer),
    Route("GET", "/jobs", Operation.READ_TRANSFER, list_transfers),
    Route("GET", "/jobs/{job_id}", Operation.READ_TRANSFER, get_transfer),
    Route("DELETE", "/jobs/{job_id}", Operation.WRITE_TRANSFER, cancel_transfer),
)
