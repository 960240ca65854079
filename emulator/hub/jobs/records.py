"""What is kept of scheduled jobs: what was asked for, how far it is, and what became of it where.

Reading a request and writing the documents that services see are pure; what runs is in `jobs.py`.
The rules are those of IoT Hub docs: schedule jobs, and of what was seen on a real hub.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid, ArgumentNull, HubError
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Key
from emulator.hub.core.times import iso
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.methods.request import MethodRequest, MethodResult
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes

# Seen on a real hub, which refuses capitals, underscores and points.
_JOB_ID = re.compile(rf"[a-z0-9\-']{{1,{limits.JOB_ID_LENGTH}}}", re.ASCII)
# What SDKs write: with or without a fraction, in UTC, with an offset, or with neither.
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?(?:Z|([+-]\d\d:\d\d))?", re.ASCII
)


class JobKey(NamedTuple):
    """Names one scheduled job."""

    id: str


class JobType(enum.Enum):
    """What a scheduled job does to each device."""

    METHOD = "scheduleDeviceMethod"
    TWIN = "scheduleUpdateTwin"

    @property
    def member(self) -> str:
        """The member of a job's document that says it in detail."""
        return "cloudToDeviceMethod" if self is JobType.METHOD else "updateTwin"


class JobStatus(enum.Enum):
    """How far a job is (IoT Hub docs: schedule jobs)."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"  # it waits for its start
    RUNNING = "running"
    COMPLETED = "completed"  # also where it failed on some devices, or on all (seen on a real hub)
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def waits(self) -> bool:
        """It has done nothing yet."""
        return self in (JobStatus.QUEUED, JobStatus.SCHEDULED)

    @property
    def over(self) -> bool:
        """It does nothing more."""
        return not self.waits and self is not JobStatus.RUNNING


class DeviceJobStatus(enum.Enum):
    """How far a job is on one device. Canceled, which SDKs know, never comes: a job that can still
    be cancelled has no devices yet.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Nothing more is done to the device."""
        return self in (DeviceJobStatus.COMPLETED, DeviceJobStatus.FAILED)


class Statistics(NamedTuple):
    """How many devices of a job have come how far.

    They are kept with the job, so that it can be read without going through its devices. Each
    commit that changes what is kept of a device writes them as well.
    """

    failed: int = 0
    completed: int = 0
    running: int = 0
    pending: int = 0

    def added(self, status: DeviceJobStatus, devices: int) -> Statistics:
        """Count so many devices more in a status."""
        count: int = getattr(self, status.value)
        return self._replace(**{status.value: count + devices})

    def document(self) -> JsonObject:
        """Write them as a job's `deviceJobStatistics`."""
        return {
            "deviceCount": sum(self),
            "failedCount": self.failed,
            "succeededCount": self.completed,
            "runningCount": self.running,
            "pendingCount": self.pending,
        }


class Job(Struct, frozen=True):
    """One scheduled job.

    Args:
        content: what it does, as its maker wrote it: the direct method, or the twin's patch.
        condition: which devices or modules it is for.
        start: when it starts, in UTC; one in the past was due as it was made.
        execution_time: how long it may run, in seconds.
        failure_reason: why it failed as a whole.
        statistics: None until it has run.
    """

    key: JobKey
    type: JobType
    content: JsonObject
    condition: str
    created: datetime
    start: datetime
    execution_time: int
    status: JobStatus
    ended: datetime | None = None
    failure_reason: str | None = None
    statistics: Statistics | None = None

    @classmethod
    def parse(cls, job_id: str, body: object, now: datetime) -> Job:
        """Read the request for a job of the id that its path names.

        Args:
            body: `{"jobId", "type", "cloudToDeviceMethod" or "updateTwin", "queryCondition",
                "startTime", "maxExecutionTimeInSeconds"}`. The condition is not looked into: a real
                hub accepts a bad one, and the job fails when it starts (seen there).

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, MessageTooLarge
        """
        body = members.document(body)
        _check_id(job_id, body.get("jobId"))
        kind = _job_type(body.get("type"))
        content = _content(kind, body, now)
        condition = members.text(body, "queryCondition")
        if not condition:
            raise ArgumentNull("queryCondition is missing")
        start = _start(body.get("startTime"), now)
        return cls(
            key=JobKey(job_id),
            type=kind,
            content=content,
            condition=condition,
            created=now,
            start=start,
            execution_time=_execution_time(body),
            status=JobStatus.SCHEDULED if start > now else JobStatus.QUEUED,
        )

    def counted(
        self, before: DeviceJobStatus | None, after: DeviceJobStatus, devices: int = 1
    ) -> Job:
        """Count devices that go from one status to another; from None they are new."""
        statistics = self.statistics or Statistics()
        if before is not None:
            statistics = statistics.added(before, -devices)
        return replace(self, statistics=statistics.added(after, devices))

    def document(self) -> JsonObject:
        """Write it as services see it; what is not known of it yet is left out.

        The payload of a method is the JSON that was sent: a real hub gives its bytes, as an array
        of numbers, which no client expects. There is never a `statusMessage`.
        """
        document = {
            "jobId": self.key.id,
            "queryCondition": self.condition,
            "createdTime": iso(self.created),
            "startTime": iso(self.start),
            "endTime": iso(self.ended) if self.ended else None,
            "maxExecutionTimeInSeconds": self.execution_time,
            "type": self.type.value,
            self.type.member: self.content,
            "status": self.status.value,
            "failureReason": self.failure_reason,
            "deviceJobStatistics": self.statistics.document() if self.statistics else None,
        }
        return {name: value for name, value in document.items() if value is not None}

    def answer(self) -> JsonObject:
        """Write it as the answer to the request for it has it (seen on a real hub): it is queued,
        even if it is for later.
        """
        status = JobStatus.QUEUED.value
        return {"jobId": self.key.id, "type": self.type.value, "status": status}


class JobError(NamedTuple):
    """Why a job failed on a device: an error's name and its text."""

    code: str
    description: str


class DeviceJob(Struct, frozen=True):
    """What became of a scheduled job on one device or module.

    Args:
        started: when the device's turn came, None before it.
        ended: when it was done with, None before that.
        response: what the device answered to a direct method.
        error: why it failed.
    """

    job: JobKey
    target: IdentityKey
    type: JobType
    created: datetime
    updated: datetime
    status: DeviceJobStatus = DeviceJobStatus.PENDING
    started: datetime | None = None
    ended: datetime | None = None
    response: MethodResult | None = None
    error: JobError | None = None

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return (self.job.id, *self.target)

    def running(self, now: datetime) -> DeviceJob:
        """It is the device's turn."""
        return replace(self, status=DeviceJobStatus.RUNNING, started=now, updated=now)

    def completed(self, response: MethodResult | None, now: datetime) -> DeviceJob:
        """It is done. A device may well have answered that it failed: that is its own affair."""
        return replace(self._over(DeviceJobStatus.COMPLETED, now), response=response)

    def failed(self, error: HubError, now: datetime) -> DeviceJob:
        """It could not be done."""
        told = JobError(error.name, error.text or error.name)
        return replace(self._over(DeviceJobStatus.FAILED, now), error=told)

    def _over(self, status: DeviceJobStatus, now: datetime) -> DeviceJob:
        return replace(self, status=status, started=self.started or now, ended=now, updated=now)

    def document(self) -> JsonObject:
        """Write it as a row of `devices.jobs` (IoT Hub docs: queries for jobs).

        A job that has not succeeded has an empty outcome, and one on a twin has no response in it
        (the docs' sample, and one of a real hub in an SDK's tests).
        """
        error = self.error
        document = {
            "deviceId": self.target.device_id,
            "moduleId": self.target.module_id,
            "jobId": self.job.id,
            "jobType": self.type.value,
            "status": self.status.value,
            "startTimeUtc": iso(self.started) if self.started else None,
            "endTimeUtc": iso(self.ended) if self.ended else None,
            "createdDateTimeUtc": iso(self.created),
            "lastUpdatedDateTimeUtc": iso(self.updated),
            "outcome": self._outcome(),
            "error": {"code": error.code, "description": error.description} if error else None,
        }
        return {name: value for name, value in document.items() if value is not None}

    def _outcome(self) -> JsonObject:
        if self.status is not DeviceJobStatus.COMPLETED:
            return {}
        response = self.response
        return {
            "deviceMethodResponse": (
                {"status": response.status, "payload": response.payload} if response else None
            )
        }


# --- reading a request


def _check_id(job_id: str, given: object) -> None:
    if not _JOB_ID.fullmatch(job_id):
        raise ArgumentInvalid(
            f"The job id '{job_id}' is not 1 to {limits.JOB_ID_LENGTH} lowercase letters, digits, "
            "hyphens and apostrophes"
        )
    if given not in (None, job_id):
        raise ArgumentInvalid(f"jobId ({given}) is not the one of the path, '{job_id}'")


def _job_type(given: object) -> JobType:
    if given is None:
        raise ArgumentNull("type is missing")
    try:
        return JobType(given)
    except ValueError:
        types = " or ".join(kind.value for kind in JobType)
        raise ArgumentInvalid(f"type ({given}) must be {types}") from None


def _content(kind: JobType, body: JsonObject, now: datetime) -> JsonObject:
    if body.get(kind.member) is None:
        raise ArgumentNull(f"{kind.member} is missing")
    content = members.block(body, kind.member)
    if kind is JobType.METHOD:
        MethodRequest.parse(content)
        return content
    if content.get("etag") != "*":
        raise ArgumentInvalid(
            f"The etag of updateTwin ({content.get('etag')}) must be *, because scheduleUpdateTwin "
            "is a forced update, which accepts no other"
        )
    # Whether a real hub looks into the patch now, or lets it fail on each device, is not known. The
    # caller learns most from an answer at once.
    writes.patch(twins.create(IdentityKey(""), now), content, now)
    return content


def _start(given: object, now: datetime) -> datetime:
    if given is None or given == "":
        return now
    start = _moment(given)
    if start - now > timedelta(seconds=limits.JOB_START_AHEAD):
        hours = limits.JOB_START_AHEAD // 3600
        raise ArgumentInvalid(f"startTime ({given}) is more than {hours} hours ahead")
    return start


def _moment(given: object) -> datetime:
    """Read a moment; one that doesn't name its offset is in UTC, as the SDKs take it."""
    try:
        match = _MOMENT.fullmatch(given) if isinstance(given, str) else None
        if match is None:
            raise ValueError(given)
        second, fraction, offset = match.groups()
        moment = datetime.fromisoformat(f"{second}.{fraction or '':0<6}{offset or '+00:00'}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentInvalid(
            f"startTime ({given}) is not a time such as 2026-01-31T14:46:08.123Z"
        ) from None


def _execution_time(body: JsonObject) -> int:
    name, default = "maxExecutionTimeInSeconds", limits.JOB_EXECUTION_TIME_DEFAULT
    # Clients that can't leave a member out send 0; what the service makes of it is unknown. Here it
    # counts as missing: a job that ends before it begins is of no use.
    if body.get(name) == 0 and type(body[name]) is int:
        return default
    return members.number(body, name, limits.JOB_EXECUTION_TIME, default)
