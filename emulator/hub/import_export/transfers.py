"""Import and export jobs: identities and twins, from and to a blob container.

The rules are those of IoT Hub docs: import and export identities in bulk, and of what was seen on a
real hub. One job runs at a time, as a task on the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Protocol

from msgspec.structs import replace

from emulator.hub.configurations.configurations import Configurations
from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.hub.core.slices import Slices
from emulator.hub.core.store import Store
from emulator.hub.import_export.files import NO_KEYS_WARNING, configuration_line, identity_line
from emulator.hub.import_export.imports import Import
from emulator.hub.import_export.records import Order, Transfer, TransferType
from emulator.hub.jobs.records import JobKey, JobStatus
from emulator.hub.registry.bulk import Bulk
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins

log = logging.getLogger(__name__)

# The blob for the errors of an import (seen on a real hub; no request can change the name).
_ERRORS = "importErrors.log"


class Blobs(Protocol):
    """The storage of import and export jobs.

    The name of a container is its URI in the request. The URI can hold a SAS, so no error repeats
    it.
    """

    async def check(self, container: str) -> None:
        """Check that blobs in the container can be written and deleted.

        Raises:
            BlobContainerValidationError
        """

    async def read(self, container: str, name: str) -> bytes:
        """Read a blob.

        Raises:
            BlobContainerValidationError: the blob is missing, or can't be read.
        """

    async def write(self, container: str, name: str, content: bytes) -> None:
        """Write or replace a blob, completely or not at all.

        Raises:
            BlobContainerValidationError
        """


# Does a job, once its containers are known to be good.
_Work = Callable[[JobKey], Awaitable[None]]
# Writes a blob into the output container of a job, by name and content.
_Write = Callable[[str, bytes], Awaitable[None]]


class Transfers:
    """The import and export jobs of a hub.

    A job is deleted `limits.JOB_HISTORY` after its end; each call first deletes the old jobs.
    """

    def __init__(
        self,
        store: Store,
        bulk: Bulk,
        twins: Twins,
        rows: Rows,
        configurations: Configurations,
        clock: Clock,
        slices: Slices,
        blobs: Blobs | None,
    ) -> None:
        self._store = store
        self._bulk = bulk
        self._twins = twins
        self._rows = rows
        self._configurations = configurations
        self._clock = clock
        self._slices = slices
        self._blobs = blobs
        self._preparing = False
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    # --- for services

    async def create(self, body: object) -> JsonObject:
        """Create a job and start it; return it as it is then, enqueued.

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, ManagedIdentityNotEnabled
            JobQuotaExceeded: another job is running.
            BlobContainerValidationError: a container can't be used, or a blob is missing.
            ServiceUnavailable: the hub is stopping.
        """
        self._check_not_stopped()
        self._forget_old()
        order = Order.parse(body)
        if self._preparing or (self._task is not None and not self._task.done()):
            raise self._refusal(errors.JobQuotaExceeded, "Job quota has been exceeded")
        self._preparing = True
        try:
            work = await self._prepare(order)
        except errors.BlobContainerValidationError as error:
            raise self._refusal(type(error), error.text) from None
        finally:
            self._preparing = False
        self._check_not_stopped()
        key = JobKey(str(uuid.uuid4()))
        transfer = Transfer(key, order.type, order.exclude_keys, self._clock.now())
        self._store.commit(put=(transfer,))
        self._task = asyncio.get_running_loop().create_task(self._run(key, work))
        return transfer.document()

    def get(self, job_id: str) -> JsonObject:
        """Return a job.

        Raises:
            JobNotFound
        """
        self._forget_old()
        return self._transfer(JobKey(job_id)).document()

    def list(self) -> list[JsonObject]:
        """Return the jobs, the oldest first."""
        self._forget_old()
        return [transfer.document() for transfer in self._store.scan(Transfer)]

    async def cancel(self, job_id: str) -> None:
        """Cancel a job, and return when it has ended; its results stay.

        For a job that has ended this has no effect. A real hub answers some of these calls with a
        server error, which clients would repeat.

        Raises:
            JobNotFound
            ServiceUnavailable: the hub is stopping.
        """
        self._check_not_stopped()
        self._forget_old()
        transfer = self._transfer(JobKey(job_id))
        if not transfer.status.over:
            self._end(transfer.key, JobStatus.CANCELLED)
            await self._cut_off()

    async def stop(self) -> None:
        """End the running job, which has failed then: the hub is stopping."""
        self._stopped = True
        self.fail_unfinished()
        await self._cut_off()

    def fail_unfinished(self) -> None:
        """End the jobs that an earlier run of the hub has left.

        They can't continue: the URIs of their containers, which are secrets, are not stored.
        """
        for transfer in self._store.scan(Transfer):
            if not transfer.status.over:
                reason = "The hub was stopped before the job was done."
                self._end(transfer.key, JobStatus.FAILED, reason)

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise errors.ServiceUnavailable

    def _forget_old(self) -> None:
        oldest = self._clock.now() - timedelta(seconds=limits.JOB_HISTORY)
        # One job runs at a time, so the jobs have ended in their order.
        old = itertools.takewhile(
            lambda each: each.ended is not None and each.ended <= oldest, self._store.scan(Transfer)
        )
        if deletions := [(Transfer, each.key) for each in old]:
            self._store.commit(delete=deletions)

    def _transfer(self, key: JobKey) -> Transfer:
        transfer = self._store.get(Transfer, key)
        if transfer is None:
            raise errors.JobNotFound(key.id)
        return transfer

    def _refusal(self, error: type[errors.HubError], message: str) -> errors.HubError:
        """Return an error of these jobs. Its text has several lines, and its tracking id is empty
        (seen on a real hub).
        """
        lines = (
            f"Error: {error.code // 1000} ErrorCode: {error.__name__}",
            f"Message: {message}",
            f"Timestamp: {self._clock.now():%m/%d/%Y %H:%M:%S}",
            "Tracking ID: ",
        )
        return error("\r\n".join(lines))

    # --- the life of a job

    async def _prepare(self, order: Order) -> _Work:
        """Check the containers, and read the files of an import.

        An import uses its files as they are at the time of the request.

        Raises:
            BlobContainerValidationError
        """
        if self._blobs is None:
            raise errors.BlobContainerValidationError("The hub was started without storage.")
        await self._blobs.check(order.output)
        write = functools.partial(self._blobs.write, order.output)
        if order.type is TransferType.EXPORT:
            return functools.partial(self._export, order, write)
        files: list[bytes] = []
        for what, name in (("devices", order.devices), ("configurations", order.configurations)):
            try:
                files.append(b"" if name is None else await self._blobs.read(order.input, name))
            except errors.BlobContainerValidationError as error:
                raise errors.BlobContainerValidationError(
                    f"Failed to read {what} blob from the input container. {error.text}"
                ) from None
        return functools.partial(self._import, files, write)

    async def _run(self, key: JobKey, work: _Work) -> None:
        self._change(key, status=JobStatus.RUNNING)
        try:
            await work(key)
        except errors.BlobContainerValidationError as error:  # the storage has changed meanwhile
            self._end(key, JobStatus.FAILED, error.text)
        except Exception:
            log.exception("The job %s failed", printable(key.id))
            self._end(key, JobStatus.FAILED, errors.ServerError.text)
        else:
            self._end(key, JobStatus.COMPLETED)

    async def _export(self, order: Order, write: _Write, key: JobKey) -> None:
        """Write a line for each identity, as it is when the export reaches it."""
        lines = [NO_KEYS_WARNING] if order.exclude_keys else []
        work = await self._slices.begin()
        for number, family in enumerate(self._rows.families()):
            lines += [identity_line(row, with_keys=not order.exclude_keys) for row in family]
            if work.over:
                self._progress(key, number * 100 // (self._rows.device_count + 1))
                await work.rest()
        await write(order.devices, b"".join(lines))
        if order.configurations is not None:
            configurations = [configuration_line(each) async for each in self._configurations.all()]
            await write(order.configurations, b"".join(configurations))

    async def _import(self, files: Iterable[bytes], write: _Write, key: JobKey) -> None:
        """Apply the lines; the job is completed even if some lines were refused."""
        work = await self._slices.begin()
        lines = Import(self._store, self._bulk, self._twins, self._configurations)
        refusals = await lines.run(work, functools.partial(self._progress, key), *files)
        # The blob is written also if it is empty: no line was refused (IoT Hub docs: clone a hub).
        await write(_ERRORS, b"".join(refusals))

    def _progress(self, key: JobKey, percent: int) -> None:
        """Store the progress of a job."""
        if percent != self._transfer(key).progress:
            self._change(key, progress=percent)

    async def _cut_off(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _end(self, key: JobKey, status: JobStatus, reason: str | None = None) -> None:
        if self._transfer(key).status.over:  # it was cancelled during its end
            return
        progress = {"progress": 100} if status is JobStatus.COMPLETED else {}
        now = self._clock.now()
        self._change(key, status=status, ended=now, failure_reason=reason, **progress)
        log.info("The job %s is %s", printable(key.id), status.value)

    def _change(self, key: JobKey, **members: Any) -> None:
        """Change a job; a disk that is full does not stop it."""
        transfer = replace(self._transfer(key), **members)
        try:
            self._store.commit(put=(transfer,))
        except errors.ServiceUnavailable:
            self._store.defer(transfer)
