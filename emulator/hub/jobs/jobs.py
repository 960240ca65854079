"""Scheduled jobs: a twin update or a direct method for every device that a condition finds.

The rules are those of IoT Hub docs: schedule jobs, and of what was seen on a real hub. Each job is
a task on the event loop, from its request to its end.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from emulator.hub.access.operations import Operation
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.places import Place, Places
from emulator.hub.core.printable import printable
from emulator.hub.core.slices import Slices
from emulator.hub.core.store import Deletion, Store
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.jobs import records
from emulator.hub.jobs.changes import JobEnded, JobStarted
from emulator.hub.jobs.records import DeviceJob, DeviceJobStatus, Job, JobKey, JobStatus, JobType
from emulator.hub.methods.methods import Methods
from emulator.hub.query.continuations import Continuation, Page, encode
from emulator.hub.query.queries import Queries
from emulator.hub.query.tree import Source
from emulator.hub.registry.twins import Twins

log = logging.getLogger(__name__)

# How long a job waits if the store can't write, such as on a disk that is full.
_RETRY_SECONDS = 5

# The types and statuses that a list can ask for (swagger of the service API). Some of them never
# occur.
_TYPES = (
    *("unknown", "export", "import", "backup", "readDeviceProperties", "writeDeviceProperties"),
    *("updateDeviceConfiguration", "rebootDevice", "factoryResetDevice", "firmwareUpdate"),
    *("scheduleDeviceMethod", "scheduleUpdateTwin", "restoreFromBackup", "failoverDataCopy"),
)
_STATUSES = ("unknown", *(status.value for status in JobStatus))


class Jobs:
    """The scheduled jobs of a hub.

    A job is deleted `limits.JOB_HISTORY` after its end. No timer waits for that: each call first
    deletes the old jobs.

    Args:
        throttles: the throttles of the hub; how many jobs can be active or scheduled.
    """

    def __init__(
        self,
        store: Store,
        twins: Twins,
        methods: Methods,
        queries: Queries,
        feed: Feed,
        clock: Clock,
        throttles: Throttles,
        slices: Slices,
    ) -> None:
        self._store = store
        self._twins = twins
        self._methods = methods
        self._queries = queries
        self._feed = feed
        self._clock = clock
        self._throttles = throttles
        self._slices = slices
        self._places = Places(job.place for job in store.scan(Job))
        self._device_places = Places(record.place for record in store.scan(DeviceJob))
        self._tasks: dict[JobKey, asyncio.Task[None]] = {}
        self._stopped = False
        queries.add_collection(Source.JOBS, records.device_jobs_collection(self._device_jobs))

    # --- for services

    def create(self, job_id: str, body: object) -> JsonObject:
        """Create a job; return the few members that the answer has.

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, MessageTooLarge
            JobAlreadyExists: a job with this id exists, even if it has ended.
            ThrottlingMaxActiveJobCountExceeded: too many jobs are active or scheduled.
            ServiceUnavailable: the hub is stopping.
        """
        self._check_not_stopped()
        self._forget_old()
        job = Job.parse(job_id, body, self._clock.now())
        if self._store.get(Job, job.key) is not None:
            raise errors.JobAlreadyExists(f"A job with ID '{job_id}' already exists.")
        slots = self._throttles.job_slots
        if sum(not each.status.over for each in self._store.scan(Job)) >= slots:
            raise errors.ThrottlingMaxActiveJobCountExceeded(
                f"{slots} jobs are active or scheduled: no more are allowed"
            )
        self._store.commit(put=(job,))
        self._places.add(job.place)
        self._begin(job)
        return job.answer()

    def get(self, job_id: str) -> JsonObject:
        """Return a job. A job that does not exist has the type and the status `unknown` (seen on a
        real hub; whether it has its id there is unknown).
        """
        self._forget_old()
        job = self._store.get(Job, JobKey(job_id))
        if job is None:
            return {"jobId": job_id, "type": "unknown", "status": "unknown"}
        return job.document()

    def cancel(self, job_id: str) -> JsonObject:
        """Cancel a job that has not started; return it.

        Raises:
            JobNotFound
            OperationNotAllowedInCurrentState: the job is running, or has ended.
            ServiceUnavailable: the hub is stopping.
        """
        self._check_not_stopped()
        self._forget_old()
        job = self._job(JobKey(job_id))
        if job.status not in (JobStatus.QUEUED, JobStatus.SCHEDULED):
            raise errors.OperationNotAllowedInCurrentState(
                f"The job '{job_id}' is {job.status.value}, and cannot be cancelled"
            )
        self._tasks[job.key].cancel()
        return self._end(job, JobStatus.CANCELLED).document()

    async def query(self, *, kind: str, status: str, size: int, continuation: str | None) -> Page:
        """Return jobs, the oldest first, in pages of at most `size`.

        Args:
            kind: the type of the jobs, in any case; empty is any type.
            status: the status of the jobs, in any case; empty is any status.
            size: the largest number of jobs on the page.
            continuation: the token for this page; None is the first page.

        Raises:
            ArgumentInvalid: the type or the status is unknown, or the continuation is of another
                list.
        """
        self._forget_old()
        kind, status = _known("jobType", kind, _TYPES), _known("jobStatus", status, _STATUSES)
        listed = f"{kind} {status}"
        start = Continuation.read(continuation, listed)
        jobs = (self._store.get(Job, JobKey(place[1])) for place in self._places.after(start.after))
        found = (
            (job.place, encode(job.document()) if job.is_of(kind, status) else None)
            for job in jobs
            if job is not None
        )
        work = await self._slices.begin()
        return await start.page(found, size, listed, "JobResponse", work)

    def _device_jobs(self, after: Place) -> Iterator[tuple[Place, JsonObject]]:
        """Return the documents of `devices.jobs` after a place, each with its place."""
        self._forget_old()
        for place in self._device_places.after(after):
            _, job_id, device_id, module_id = place
            record = self._store.get(DeviceJob, (job_id, device_id, module_id or None))
            if record is not None:
                yield place, record.document()

    async def stop(self) -> None:
        """End the tasks of all jobs: the hub is stopping.

        The records stay as they are, with devices that are pending or running: `resume` continues
        with them, if the store lasts.
        """
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def resume(self) -> None:
        """Continue with the jobs that an earlier run of the hub has left."""
        for job in self._store.scan(Job):
            if not job.status.over:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        """Run a job in a task of its own, from its start time on."""
        task = asyncio.get_running_loop().create_task(self._run(job.key, job.start))
        self._tasks[job.key] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.key, None))

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise errors.ServiceUnavailable

    def _forget_old(self) -> None:
        oldest = self._clock.now() - timedelta(seconds=limits.JOB_HISTORY)
        early = itertools.takewhile(lambda job: job.created <= oldest, self._store.scan(Job))
        old = [job.key for job in early if job.ended is not None and job.ended <= oldest]
        if old:
            deletions: list[Deletion] = [(Job, key) for key in old]
            for key in old:
                self._places.remove(self._job(key).place)
                for record in self._store.scan(DeviceJob, key):
                    self._device_places.remove(record.place)
                    deletions.append((DeviceJob, record.key))
            self._store.commit(delete=deletions)

    def _job(self, key: JobKey) -> Job:
        job = self._store.get(Job, key)
        if job is None:
            raise errors.JobNotFound(key.id)
        return job

    # --- the life of a job

    async def _run(self, key: JobKey, start: datetime) -> None:
        # A timer can be early, and a clock can be set back.
        while (seconds := (start - self._clock.now()).total_seconds()) > 0:
            await self._clock.sleep(seconds)
        while True:
            try:
                return await self._try(key)
            except errors.ServiceUnavailable:  # the store can't write
                await self._clock.sleep(_RETRY_SECONDS)

    async def _try(self, key: JobKey) -> None:
        """Run a job to its end.

        Raises:
            ServiceUnavailable: the store can't write. It has the job as far as it went.
        """
        try:
            await self._carry_out(self._job(key))
        except errors.ServiceUnavailable:
            raise
        except errors.HubError as error:  # the condition is invalid
            self._end(self._job(key), JobStatus.FAILED, errors.error_text(error))
        except Exception:
            log.exception("The job %s failed", printable(key.id))
            await self._fail_rest(key, errors.ServerError())
            self._end(self._job(key), JobStatus.FAILED, errors.ServerError.text)

    async def _carry_out(self, job: Job) -> None:
        """Run a job on every device that its condition finds now, or continue with it.

        A direct method that was on its way when the hub ended has failed: its answer is lost.

        If the execution time ends first, the job is completed, and the devices that are left have
        failed (described by a vendor of IoT software; the error is in an SDK's tests).

        Raises:
            ArgumentInvalid: the condition is invalid.
        """
        if not job.enlisted:
            targets = await self._queries.find(job.condition)
            if job.status is not JobStatus.RUNNING:
                job = replace(job, status=JobStatus.RUNNING, devices=Counter())
                self._store.commit(put=(job,))
                self._feed.publish(JobStarted(job))
            await self._enlist(job, targets)
        enlisted = self._store.scan(DeviceJob, (job.key.id,))
        for record in enlisted:
            if record.status is DeviceJobStatus.RUNNING:
                error = records.reason(errors.ServiceUnavailable())
                self._move(record, DeviceJobStatus.FAILED, error=error)
        pending = [each for each in enlisted if each.status is DeviceJobStatus.PENDING]
        if not await self._work_on(job, pending):
            await self._fail_rest(job.key, errors.JobRunPreconditionFailed())
        self._end(self._job(job.key), JobStatus.COMPLETED)

    async def _enlist(self, job: Job, targets: Iterable[IdentityKey]) -> None:
        """Store a pending record for each device that has none."""
        known = {each.target for each in self._store.scan(DeviceJob, (job.key.id,))}
        left, work = (each for each in targets if each not in known), await self._slices.begin()
        while some := list(itertools.islice(left, limits.JOB_SLICE)):
            now = self._clock.now()
            new = [DeviceJob(job.key, each, job.type, created=now, updated=now) for each in some]
            counted = self._job(job.key).counted(None, DeviceJobStatus.PENDING, len(new))
            self._store.commit(put=(*new, counted))
            for record in new:
                self._device_places.add(record.place)
            if work.over:
                await work.rest()
        self._store.commit(put=(replace(self._job(job.key), enlisted=True),))

    async def _work_on(self, job: Job, enlisted: Sequence[DeviceJob]) -> bool:
        """Run a job on its devices; return whether it ended within the execution time."""
        # A twin is written at once. Devices need time to answer, so many are called.
        at_once = limits.JOB_METHODS_AT_ONCE if job.type is JobType.METHOD else 1
        left, work = iter(enlisted), await self._slices.begin()

        async def worker() -> None:
            for record in left:
                await self._throttles.wait(Operation.WORK_ON_DEVICE)
                self._throttles.charge(Operation.WORK_ON_DEVICE)
                await self._work_on_one(job, record)
                if work.over:  # a twin update waits for nothing
                    await work.rest()

        workers = [asyncio.create_task(worker()) for _ in range(min(at_once, len(enlisted)))]
        if not workers:
            return True
        timer = self._clock.call_later(job.execution_time, _cancel, workers)
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            timer.cancel()
            _cancel(workers)
            await asyncio.gather(*workers, return_exceptions=True)
        in_time = [each for each in done if not each.cancelled()]
        for each in in_time:
            each.result()  # raises what it raised
        return len(in_time) == len(done)

    async def _work_on_one(self, job: Job, record: DeviceJob) -> None:
        """Run a job on one device; a device that was deleted meanwhile is a failure."""
        try:
            if job.type is JobType.TWIN:
                # In one commit: a hub that ends between two would write the twin again.
                moved = self._moved(record, DeviceJobStatus.COMPLETED)
                self._twins.patch(record.target, job.content, IfMatch(None), also=moved)
            else:
                record = self._move(record, DeviceJobStatus.RUNNING)
                answer = await self._methods.invoke(record.target, job.content)
                # Whatever status the device returned.
                response = records.readable(answer)
                self._move(record, DeviceJobStatus.COMPLETED, response=response)
        except errors.HubError as error:
            self._move(record, DeviceJobStatus.FAILED, error=records.reason(error))

    async def _fail_rest(self, key: JobKey, error: errors.HubError) -> None:
        """Store a failure for each device where the job has not ended."""
        work = await self._slices.begin()
        for record in self._store.scan(DeviceJob, (key.id,)):
            if not record.status.over:
                self._move(record, DeviceJobStatus.FAILED, error=records.reason(error))
                if work.over:
                    await work.rest()

    def _move(self, before: DeviceJob, status: DeviceJobStatus, **outcome: object) -> DeviceJob:
        """Store the new status of a device, and count it in the job."""
        after, job = self._moved(before, status, **outcome)
        self._store.commit(put=(after, job))
        return after

    def _moved(
        self, before: DeviceJob, status: DeviceJobStatus, **outcome: object
    ) -> tuple[DeviceJob, Job]:
        after = before.moved(status, self._clock.now(), **outcome)
        return after, self._job(after.job).counted(before.status, status)

    def _end(self, job: Job, status: JobStatus, failure_reason: str | None = None) -> Job:
        job = replace(job, status=status, ended=self._clock.now(), failure_reason=failure_reason)
        self._store.commit(put=(job,))
        self._feed.publish(JobEnded(job))
        log.info("The job %s is %s", printable(job.key.id), status.value)
        return job


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _known(name: str, given: str, words: Iterable[str]) -> str:
    """Return a word in its usual spelling; an empty one stays empty."""
    word = {"": ""} | {each.lower(): each for each in words}
    if given.lower() not in word:
        raise errors.ArgumentInvalid(f"Unknown {name}: {given}")
    return word[given.lower()]
