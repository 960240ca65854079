"""`job`: scheduled jobs, and those of import and export."""

from __future__ import annotations

import argparse
import time
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub
from emulator.cli.parser import UsageError
from emulator.errors import ClientError

_ENDED = ("completed", "failed", "cancelled")
_TRANSFERS = ("export", "import")
_COLUMNS = ("jobId", "type", "status", "createdTime", "endTime")
# The names of an import or export job, as those of a scheduled job.
_SAME_NAMES = {"startTimeUtc": "startTime", "endTimeUtc": "endTime"}


def create(hub: Hub, options: argparse.Namespace) -> Any:
    """Schedule a job; return it, with --wait as it ended."""
    kind = options.job_type
    document: dict[str, Any] = {
        "jobId": options.job_id,
        "type": kind,
        "queryCondition": options.query_condition,
        "maxExecutionTimeInSeconds": options.ttl,
        **({"startTime": options.start_time} if options.start_time else {}),
    }
    if kind == "scheduleUpdateTwin":
        if options.twin_patch is None:
            raise UsageError(f"--twin-patch is missing. {kind} needs it")
        document["updateTwin"] = {**options.twin_patch, "etag": "*"}
    else:
        if not options.method_name:
            raise UsageError(f"--method-name is missing. {kind} needs it")
        document["cloudToDeviceMethod"] = {
            "methodName": options.method_name,
            "payload": {} if options.method_payload is None else options.method_payload,
            "connectTimeoutInSeconds": options.method_connect_timeout,
            "responseTimeoutInSeconds": options.method_response_timeout,
        }
    job = hub.send("PUT", "jobs", "v2", options.job_id, body=document).json()
    return _wait(hub, options) if options.wait else job


def _wait(hub: Hub, options: argparse.Namespace) -> Any:
    end = time.monotonic() + options.poll_duration
    pause = min(0.2, options.poll_interval)  # a job of an emulator ends at once
    while True:
        job = show(hub, options)
        left = end - time.monotonic()
        if job["status"] in _ENDED or left <= 0:
            return job
        time.sleep(min(pause, left))
        pause = min(2 * pause, options.poll_interval)


def show(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a job.

    Raises:
        ClientError: it is unknown.
    """
    job = hub.get("jobs", "v2", options.job_id)
    # A scheduled job that does not exist is unknown; another kind of job can have this id.
    if job.get("status") != "unknown":
        return job
    try:
        return _as_scheduled(hub.get("jobs", options.job_id))
    except ClientError as error:
        if error.status != 404:
            raise
        text = f"{hub.client.host} has no job {options.job_id!r}."
        raise ClientError(text, status=404, code="JobNotFound") from None


def list_jobs(hub: Hub, options: argparse.Namespace) -> Any:
    """Return jobs of both kinds."""
    kind, status, top = options.job_type, options.job_status, options.top
    jobs = [] if kind in _TRANSFERS else hub.jobs(kind, status, top)
    if kind is None or kind in _TRANSFERS:
        jobs += [
            job
            for job in map(_as_scheduled, hub.get("jobs"))
            if kind in (None, job["type"]) and status in (None, job["status"])
        ]
    return jobs[:top]


def cancel(hub: Hub, options: argparse.Namespace) -> Any:
    """Cancel a job; return it."""
    if show(hub, options)["type"] in _TRANSFERS:
        return hub.send("DELETE", "jobs", options.job_id).json()
    return hub.send("POST", "jobs", "v2", options.job_id, "cancel").json()


def _as_scheduled(job: dict[str, Any]) -> dict[str, Any]:
    named = {_SAME_NAMES.get(name, name): value for name, value in job.items()}
    return {"createdTime": named.get("startTime"), **named}


_OF = (o.JOB,)

COMMANDS: tuple[Command, ...] = (
    Command(
        "job create",
        "schedule a job that updates twins or calls a method",
        create,
        (*_OF, *o.NEW_JOB),
        '--job-id reboot1 --jt scheduleDeviceMethod \\\n      -q "tags.floor = 1" --mn reboot',
        _COLUMNS,
    ),
    Command("job show", "show a job", show, _OF, "--job-id reboot1", _COLUMNS),
    Command(
        "job list",
        "list jobs",
        list_jobs,
        (o.JOB_TYPE, o.JOB_STATUS, o.ALL_TOP),
        "--job-status running -o table",
        _COLUMNS,
    ),
    Command("job cancel", "cancel a job", cancel, _OF, "--job-id reboot1", _COLUMNS),
)
