"""The records of scheduled jobs: each job, and its state on each device.

Parsing a request and writing documents are pure functions; jobs run in `jobs.py`. The rules are
those of IoT Hub docs: schedule jobs, and of what was seen on a real hub.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import limits, members
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    GenericBadRequest,
    HubError,
    MessageTooLarge,
    PreconditionFailed,
    error_text,
)
from emulator.hub.core.json import UNDEFINED, JsonObject, WrittenJson, dumps, is_json, loads
from emulator.hub.core.places import Place
from emulator.hub.core.store import Key
from emulator.hub.core.times import iso
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.methods.request import METHOD, MethodRequest, MethodResult
from emulator.hub.query.queries import Collection
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes

# Reports of capitals disagree: one hub refused them, but Microsoft's samples use them. Two ids that
# differ in letter case are two jobs. Underscores and points are refused (seen on a real hub).
_JOB_ID = re.compile(rf"[A-Za-z0-9\-']{{1,{limits.JOB_ID_LENGTH}}}", re.ASCII)
_JOB = members.Form(
    *("jobId", "type", "queryCondition", "startTime", "maxExecutionTimeInSeconds"),
    cloudToDeviceMethod=METHOD,
    updateTwin=writes.TWIN,
)
# The forms of the SDKs: with or without a fraction; in UTC, with an offset, or without one.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)

# The members of `devices.jobs` (IoT Hub docs: queries for jobs). The sample of the docs asks for
# createdTimeUtc, which the documents have under another name.
_MEMBERS = (
    *("deviceId", "moduleId", "jobId", "jobType", "status", "startTimeUtc", "endTimeUtc"),
    *("createdDateTimeUtc", "lastUpdatedDateTimeUtc", "outcome", "error"),
)


class JobKey(NamedTuple):
    """The key of a scheduled job, or of an import or export job."""

    id: str


class JobType(enum.Enum):
    """What a scheduled job does to each device."""

    METHOD = "scheduleDeviceMethod"
    TWIN = "scheduleUpdateTwin"

    @property
    def member(self) -> str:
        """The member of a job's document that has the details."""
        return "cloudToDeviceMethod" if self is JobType.METHOD else "updateTwin"


class JobStatus(enum.Enum):
    """The status of a scheduled job (IoT Hub docs: schedule jobs), or of an import or export job
    (swagger of the service API).
    """

    ENQUEUED = "enqueued"  # an import or export job that has not started
    QUEUED = "queued"
    SCHEDULED = "scheduled"  # it waits for its start time
    RUNNING = "running"
    COMPLETED = "completed"  # also if it failed on all devices (seen on a real hub)
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class DeviceJobStatus(enum.Enum):
    """The status of a job on one device. `canceled`, which SDKs know, never occurs: a job that can
    be cancelled has no devices yet.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether the job has ended on the device."""
        return self in (DeviceJobStatus.COMPLETED, DeviceJobStatus.FAILED)


class Job(Struct, frozen=True):
    """One scheduled job.

    Args:
        content: the direct method or the patch of the twin, as the service sent it.
        condition: the condition that selects devices or modules.
        start: the start time, in UTC.
        execution_time: how long it can run, in seconds.
        failure_reason: why the whole job failed.
        devices: how many devices have which status; None before the start. The job has these
            numbers, so that a read of the job does not scan its devices. Each commit that changes
            the record of a device updates them.
        enlisted: whether every device of the job has its record.
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
    devices: Counter[DeviceJobStatus] | None = None
    enlisted: bool = False

    @property
    def place(self) -> Place:
        """The place of the job in a list: the oldest is first."""
        return place_time(self.created), self.key.id

    @classmethod
    def parse(cls, job_id: str, body: object, now: datetime) -> Job:
        """Parse the request for a job.

        Args:
            body: `{"jobId", "type", "cloudToDeviceMethod" or "updateTwin", "queryCondition",
                "startTime", "maxExecutionTimeInSeconds"}`. The condition is not parsed: a real hub
                accepts an invalid one, and the job fails when it starts (seen there).

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, MessageTooLarge
            PreconditionFailed: the condition is too long.
            DeviceModelMaxPropertiesExceeded: no twin could hold the patch.
            GenericBadRequest: the type is unknown, or a member of the twin.
        """
        body = members.document(body, _JOB)
        _check_id(job_id, body.get("jobId"))
        kind = _job_type(body.get("type"))
        content = _content(kind, body, now)
        condition = members.text(body, "queryCondition")
        if not condition:
            raise ArgumentNull("queryCondition is missing")
        if len(condition) > limits.QUERY_TEXT_LENGTH:  # refused at once (seen on a real hub)
            raise PreconditionFailed(
                f"queryCondition has {len(condition)} characters. {limits.QUERY_TEXT_LENGTH} are "
                "allowed"
            )
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

    def is_of(self, kind: str, status: str) -> bool:
        """Return whether the job has a type and a status; an empty text stands for any."""
        return kind in ("", self.type.value) and status in ("", self.status.value)

    def counted(
        self, before: DeviceJobStatus | None, after: DeviceJobStatus, devices: int = 1
    ) -> Job:
        """Return the job with devices moved from one status to another; from None they are new."""
        counts = Counter(self.devices)
        counts[after] += devices
        if before is not None:
            counts[before] -= devices
        return replace(self, devices=counts)

    def document(self) -> JsonObject:
        """Return the job as services see it; members that have no value yet are left out.

        The payload of a method is the JSON that was sent. A real hub returns its bytes as an array
        of numbers, which no client expects. `statusMessage` never occurs.
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
            "deviceJobStatistics": self._statistics(),
        }
        return {name: value for name, value in document.items() if value is not None}

    def _statistics(self) -> JsonObject | None:
        if self.devices is None:
            return None
        return {
            "deviceCount": self.devices.total(),
            "failedCount": self.devices[DeviceJobStatus.FAILED],
            "succeededCount": self.devices[DeviceJobStatus.COMPLETED],
            "runningCount": self.devices[DeviceJobStatus.RUNNING],
            "pendingCount": self.devices[DeviceJobStatus.PENDING],
        }

    def answer(self) -> JsonObject:
        """Return the answer to the request for the job: its status is queued, even if it starts
        later (seen on a real hub).
        """
        status = JobStatus.QUEUED.value
        return {"jobId": self.key.id, "type": self.type.value, "status": status}


def reason(error: HubError) -> JsonObject:
    """Return why a job failed on a device: the name and the text of an error."""
    return {"code": error.name, "description": error_text(error)}


class DeviceJob(Struct, frozen=True):
    """The state of a scheduled job on one device or module.

    Args:
        started: when the job began on the device; None before that.
        ended: when it ended there; None before that.
        response: the device's response to a direct method.
        error: why it failed: the name and the text of an error.
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
    error: JsonObject | None = None

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return (self.job.id, *self.target)

    @property
    def place(self) -> Place:
        """The place of the record among the rows of `devices.jobs`."""
        return (place_time(self.created), self.job.id, self.target[0], self.target[1] or "")

    def moved(self, status: DeviceJobStatus, now: datetime, **members: object) -> DeviceJob:
        """Return the record with a new status: the job has begun or ended on the device."""
        times = {"started": self.started or now, "ended": now if status.over else None}
        return replace(self, status=status, updated=now, **times, **members)

    def document(self) -> JsonObject:
        """Return the row of `devices.jobs` (IoT Hub docs: queries for jobs).

        The outcome is empty without success, and has no response for a twin update (the docs'
        sample, and one of a real hub in an SDK's tests).
        """
        response = None
        if self.response:
            payload = WrittenJson(self.response.payload)
            response = {"status": self.response.status, "payload": payload}
        completed = self.status is DeviceJobStatus.COMPLETED
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
            "outcome": {"deviceMethodResponse": response} if completed else {},
            "error": self.error,
        }
        return {name: value for name, value in document.items() if value is not None}


# --- the rows of `devices.jobs`


def readable(response: MethodResult) -> MethodResult:
    """Return the response of a device for its row.

    The answer to a query is always JSON, and has rows of many devices. So a payload that only a
    lenient reader accepts, such as `{'a': 1}` or `1 // one`, becomes a string with its text.
    """
    if is_json(response.payload):
        return response
    return replace(response, payload=dumps(response.payload.decode()))


def device_jobs_collection(
    documents: Callable[[Place], Iterator[tuple[Place, JsonObject]]],
) -> Collection:
    """Return the collection for queries over documents, which are called for by their place."""
    readers = {name: _reader(name) for name in _MEMBERS}
    readers["createdTimeUtc"] = readers["createdDateTimeUtc"]
    readers["outcome"] = _outcome
    return Collection(documents, readers, lambda document: document, "DeviceJob")


def place_time(time: datetime) -> str:
    """Return a time as a part of a place: in this form, times are ordered as texts."""
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}"


def _outcome(document: JsonObject) -> JsonObject:
    """Return the outcome with the value of its payload; one that is over a limit has no value."""
    outcome: JsonObject = document["outcome"]
    response = outcome.get("deviceMethodResponse")
    if not response:
        return outcome
    try:
        payload = loads(response["payload"].text)
    except ValueError:
        return outcome
    return {"deviceMethodResponse": {**response, "payload": payload}}


def _reader(name: str) -> Callable[[JsonObject], Any]:
    return lambda document: document.get(name, UNDEFINED)


# --- parsing a request


def _check_id(job_id: str, given: object) -> None:
    if not _JOB_ID.fullmatch(job_id):
        raise ArgumentInvalid(
            f"Invalid job id '{job_id}': 1 to {limits.JOB_ID_LENGTH} ASCII letters, digits, "
            "hyphens and apostrophes are allowed"
        )
    if given not in (None, job_id):
        raise ArgumentInvalid(f"jobId ({given}) differs from the job id in the path ({job_id})")


def _job_type(given: object) -> JobType:
    if given is None:
        raise ArgumentNull("type is missing")
    try:
        return JobType(given)
    except ValueError:
        types = " or ".join(kind.value for kind in JobType)
        # The name and the start of the text were seen on a real hub.
        raise GenericBadRequest(f"BadRequest: type ({given}) must be {types}") from None


def _content(kind: JobType, body: JsonObject, now: datetime) -> JsonObject:
    if body.get(kind.member) is None:
        raise ArgumentNull(f"{kind.member} is missing")
    content = members.block(body, kind.member)
    size = len(dumps(content))
    if size > limits.JOB_CONTENT_BYTES:
        raise MessageTooLarge(
            f"{kind.member} has {size} bytes. {limits.JOB_CONTENT_BYTES} are allowed"
        )
    if kind is JobType.METHOD:
        MethodRequest.parse(content)
        return content
    if content.get("etag") != "*":
        raise ArgumentInvalid(
            f"Invalid etag of updateTwin: {content.get('etag')}. ScheduleUpdateTwin is a forced "
            "update that only accepts *"
        )
    # Whether a real hub checks the patch now, or lets it fail on each device, is unknown. An answer
    # at once helps the caller most.
    writes.patch(twins.create(IdentityKey(""), now), content, now)
    return content


def _start(given: object, now: datetime) -> datetime:
    if given is None or given == "":
        return now
    try:
        if not (isinstance(given, str) and _TIME.fullmatch(given)):
            raise ValueError(given)
        moment = datetime.fromisoformat(given)
        # Without an offset it is UTC, as in the SDKs.
        start = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ArgumentInvalid(
            f"startTime ({given}) is not a time such as 2026-01-31T14:46:08.123Z"
        ) from None
    if start - now > timedelta(seconds=limits.JOB_START_AHEAD):
        hours = limits.JOB_START_AHEAD // 3600
        raise ArgumentInvalid(f"startTime ({given}) is more than {hours} hours ahead")
    return start


def _execution_time(body: JsonObject) -> int:
    name, default = "maxExecutionTimeInSeconds", limits.JOB_EXECUTION_TIME_DEFAULT
    # Clients that can't leave a member out send 0; what the service makes of it is unknown. Here it
    # counts as missing: a job that ends before it begins is of no use.
    if body.get(name) == 0 and type(body[name]) is int:
        return default
    return members.number(body, name, limits.JOB_EXECUTION_TIME, default)
