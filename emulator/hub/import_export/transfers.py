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
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol

from msgspec.structs import replace

from emulator.hub.configurations.configurations import Configurations
from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Store
from emulator.hub.identities.identity import Identity
from emulator.hub.import_export import records
from emulator.hub.import_export.files import NO_KEYS_WARNING, configuration_line, identity_line
from emulator.hub.import_export.imports import Import
from emulator.hub.registry.bulk import Bulk
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins

log = logging.getLogger(__name__)

# The blob for the errors of an import (seen on a real hub; no request can change the name).
_ERRORS = "importErrors.log"

_NO_STORAGE = "The hub was started without storage."


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


class NoBlobs:
    """No storage: every container is refused."""

    async def check(self, container: str) -> None:
        """See `Blobs.check`."""
        raise errors.BlobContainerValidationError(_NO_STORAGE)

    async def read(self, container: str, name: str) -> bytes:
        """See `Blobs.read`."""
        raise errors.BlobContainerValidationError(_NO_STORAGE)

    async def write(self, container: str, name: str, content: bytes) -> None:
        """See `Blobs.write`."""
        raise errors.BlobContainerValidationError(_NO_STORAGE)


# Does a job, once its containers are known to be good.
_Work = Callable[[records.TransferKey], Awaitable[None]]


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
        blobs: Blobs,
    ) -> None:
        self._store = store
        self._bulk = bulk
        self._twins = twins
        self._rows = rows
        self._configurations = configurations
        self._clock = clock
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
        order = records.Order.parse(body)
        if self._preparing or (self._task is not None and not self._task.done()):
            raise errors.JobQuotaExceeded(
                self._block(errors.JobQuotaExceeded, "Job quota has been exceeded")
            )
        self._preparing = True
        try:
            work = await self._prepare(order)
        except errors.BlobContainerValidationError as error:
            text = self._block(errors.BlobContainerValidationError, error.text)
            raise errors.BlobContainerValidationError(text) from None
        finally:
            self._preparing = False
        self._check_not_stopped()
        key = records.TransferKey(str(uuid.uuid4()))
        transfer = records.Transfer(key, order.type, order.exclude_keys, self._clock.now())
        self._store.commit(put=(transfer,))
        self._task = asyncio.get_running_loop().create_task(self._run(key, work))
        return transfer.document()

    def get(self, job_id: str) -> JsonObject:
        """Return a job.

        Raises:
            JobNotFound
        """
        self._forget_old()
        return self._transfer(records.TransferKey(job_id)).document()

    def list(self) -> list[JsonObject]:
        """Return the jobs, the oldest first."""
        self._forget_old()
        return [transfer.document() for transfer in self._store.scan(records.Transfer)]

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
        transfer = self._transfer(records.TransferKey(job_id))
        if not transfer.status.over:
            self._end(transfer.key, records.TransferStatus.CANCELLED)
            await self._cut_off()

    async def stop(self) -> None:
        """End the running job, which has failed then: the hub is stopping."""
        self._stopped = True
        for transfer in self._store.scan(records.Transfer):
            if not transfer.status.over:
                reason = "The hub was stopped before the job was done."
                self._end(transfer.key, records.TransferStatus.FAILED, reason)
        await self._cut_off()

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise errors.ServiceUnavailable

    def _forget_old(self) -> None:
        oldest = self._clock.now() - timedelta(seconds=limits.JOB_HISTORY)
        # One job runs at a time, so the jobs have ended in their order.
        old = [
            transfer.key
            for transfer in itertools.takewhile(
                lambda each: each.ended is not None and each.ended <= oldest,
                self._store.scan(records.Transfer),
            )
        ]
        if old:
            self._store.commit(delete=[(records.Transfer, key) for key in old])

    def _transfer(self, key: records.TransferKey) -> records.Transfer:
        transfer = self._store.get(records.Transfer, key)
        if transfer is None:
            raise errors.JobNotFound(key.id)
        return transfer

    def _block(self, error: type[errors.HubError], message: str) -> str:
        """Return the text of an error of these jobs: in several lines, with an empty tracking id
        (seen on a real hub).
        """
        lines = (
            f"Error: {error.code // 1000} ErrorCode: {error.__name__}",
            f"Message: {message}",
            f"Timestamp: {self._clock.now():%m/%d/%Y %H:%M:%S}",
            "Tracking ID: ",
        )
        return "\r\n".join(lines)

    # --- the life of a job

    async def _prepare(self, order: records.Order) -> _Work:
        """Check the containers, and read the files of an import.

        An import uses its files as they are at the time of the request.

        Raises:
            BlobContainerValidationError
        """
        await self._blobs.check(order.output)
        if order.type is records.TransferType.EXPORT:
            return functools.partial(self._export, order)
        devices = await self._read(order, order.devices, "devices")
        configurations = None
        if order.configurations is not None:
            configurations = await self._read(order, order.configurations, "configurations")
        work = Import(
            self._store,
            self._bulk,
            self._twins,
            self._configurations,
            devices,
            configurations or b"",
        )
        return functools.partial(self._import, order, work)

    async def _read(self, order: records.Order, name: str, what: str) -> bytes:
        try:
            return await self._blobs.read(order.input, name)
        except errors.BlobContainerValidationError as error:
            raise errors.BlobContainerValidationError(
                f"Failed to read {what} blob from the input container. {error.text}"
            ) from None

    async def _run(self, key: records.TransferKey, work: _Work) -> None:
        self._change(key, status=records.TransferStatus.RUNNING)
        try:
            await work(key)
        except errors.BlobContainerValidationError as error:  # the storage has changed meanwhile
            self._end(key, records.TransferStatus.FAILED, error.text)
        except Exception:
            log.exception("The job %s failed", printable(key.id))
            self._end(key, records.TransferStatus.FAILED, errors.ServerError.text)
        else:
            self._end(key, records.TransferStatus.COMPLETED)

    async def _export(self, order: records.Order, key: records.TransferKey) -> None:
        """Write a line for each identity that exists during the whole export."""
        keys = self._rows.identity_keys()
        lines = [NO_KEYS_WARNING] if order.exclude_keys else []
        for number, identity_key in enumerate(keys):
            if number % limits.TRANSFER_SLICE == 0:
                await self._progress(key, number * 100 // len(keys))
            if self._store.get(Identity, identity_key) is not None:  # else it was deleted
                row = self._rows.row(identity_key)
                lines.append(identity_line(row, with_keys=not order.exclude_keys))
        await self._blobs.write(order.output, order.devices, b"".join(lines))
        if order.configurations is not None:
            configurations = map(configuration_line, self._configurations.list())
            await self._blobs.write(order.output, order.configurations, b"".join(configurations))

    async def _import(self, order: records.Order, work: Import, key: records.TransferKey) -> None:
        """Apply the lines; the job is completed even if some lines were refused."""
        await work.run(functools.partial(self._progress, key))
        # The blob is written also if it is empty: no line was refused (IoT Hub docs: clone a hub).
        await self._blobs.write(order.output, _ERRORS, b"".join(work.errors))

    async def _progress(self, key: records.TransferKey, percent: int) -> None:
        """Store the progress of a job, and let other work run."""
        if percent != self._transfer(key).progress:
            self._change(key, progress=percent)
        await asyncio.sleep(0)

    async def _cut_off(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _end(
        self, key: records.TransferKey, status: records.TransferStatus, reason: str | None = None
    ) -> None:
        if self._transfer(key).status.over:  # it was cancelled during its end
            return
        progress = {"progress": 100} if status is records.TransferStatus.COMPLETED else {}
        now = self._clock.now()
        self._change(key, status=status, ended=now, failure_reason=reason, **progress)
        log.info("The job %s is %s", printable(key.id), status.value)

    def _change(self, key: records.TransferKey, **members: Any) -> None:
        self._store.commit(put=(replace(self._transfer(key), **members),))
