"""Import and export jobs: `/jobs` (IoT Hub docs: import and export identities in bulk)."""

from __future__ import annotations

from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def create_job(hub: IotHub, request: Request) -> JsonObject:
    """`POST /jobs/create`: create an import or export job; 200 with the job, enqueued."""
    return await hub.transfers.create(await read_json(request))


async def list_jobs(hub: IotHub, _: Request) -> list[JsonObject]:
    """`GET /jobs`: 200 with an array of the import and export jobs."""
    return hub.transfers.list()


async def get_job(hub: IotHub, request: Request) -> JsonObject:
    """`GET /jobs/{id}`: 200 with the job."""
    return hub.transfers.get(request.names["job_id"])


async def cancel_job(hub: IotHub, request: Request) -> None:
    """`DELETE /jobs/{id}`: cancel the job; 204 (the swagger also has 200)."""
    await hub.transfers.cancel(request.names["job_id"])


ROUTES = (
    Route("POST", "/jobs/create", Operation.WRITE_TRANSFER, create_job),
    Route("GET", "/jobs", Operation.READ_TRANSFER, list_jobs),
    Route("GET", "/jobs/{job_id}", Operation.READ_TRANSFER, get_job),
    Route("DELETE", "/jobs/{job_id}", Operation.WRITE_TRANSFER, cancel_job),
)
