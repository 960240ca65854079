"""Import and export jobs: identities and twins, from and to a blob container.

The rules are those of IoT Hub docs: import and export identities in bulk, and of what was seen on a
real hub. One job runs at a time: a task on the event loop, from the request for it to its end.
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
from emulator.hub.core.store import Store
from emulator.hub.identities.identity import Identity
from emulator.hub.import_export.files import NO_KEYS_WARNING, configuration_line, identity_line
from emulator.hub.import_export.imports import Import
from emulator.hub.import_export.records import (
    Order,
    Transfer,
    TransferKey,
    TransferStatus,
    TransferType,
)
from emulator.hub.registry.bulk import Bulk
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins

log = logging.getLogger(__name__)

# Where an import leaves what went wrong (seen on a real hub; no request can change the name).
_ERRORS = "importErrors.log"

_NO_STORAGE = "The hub was started without any storage."


class Blobs(Protocol):
    """Where import and export jobs find their files, and leave them.

    A container is named by its URI, as a service gives it to the job. It may hold a SAS, so no
    error repeats it.
    """

    async def check(self, container: str) -> None:
        """Make sure that the container can be written, and its blobs deleted.

        Raises:
            BlobContainerValidationError
        """

    async def read(self, container: str, name: str) -> bytes:
        """Read a blob.

        Raises:
            BlobContainerValidationError: it can't be read, or is not there.
        """

    async def write(self, container: str, name: str, content: bytes) -> None:
        """Write a blob, in the place of one of that name: the whole of it, or nothing.

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
_Work = Callable[[TransferKey], Awaitable[None]]


class Transfers:
    """The import and export jobs of a hub.

    A job is forgotten `limits.JOB_HISTORY` after it has ended; whatever asks for jobs clears away
    first.
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

    # --- what services ask for

    async def create(self, body: object) -> JsonObject:
        """Make a job, and start it; gives it as it is then, enqueued.

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, ManagedIdentityNotEnabled
            JobQuotaExceeded: another one runs.
            BlobContainerValidationError: a container can't be used, or holds no such blob.
            ServiceUnavailable: the hub is stopping.
        """
        self._check_not_stopped()
        self._forget_old()
        order = Order.parse(body)
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
        key = TransferKey(str(uuid.uuid4()))
        transfer = Transfer(key, order.type, order.exclude_keys, self._clock.now())
        self._store.commit(put=(transfer,))
        self._task = asyncio.get_running_loop().create_task(self._run(key, work))
        return transfer.document()

    def get(self, job_id: str) -> JsonObject:
        """Read a job.

        Raises:
            JobNotFound
        """
        self._forget_old()
        return self._transfer(TransferKey(job_id)).document()

    def list(self) -> list[JsonObject]:
        """List the jobs, the oldest first."""
        self._forget_old()
        return [transfer.document() for transfer in self._store.scan(Transfer)]

    async def cancel(self, job_id: str) -> None:
        """Cancel a job; what it has done stays. When this returns, it does nothing more.

        A real hub answers a server error for some jobs that are over, which clients would try
        again; here nothing happens to such a job, and that is no error.

        Raises:
            JobNotFound
            ServiceUnavailable: the hub is stopping.
        """
        self._check_not_stopped()
        self._forget_old()
        transfer = self._transfer(TransferKey(job_id))
        if not transfer.status.over:
            self._end(transfer.key, TransferStatus.CANCELLED)
            await self._cut_off()

    async def stop(self) -> None:
        """End what runs: the hub is stopping. A job that is cut off so has failed."""
        self._stopped = True
        for transfer in self._store.scan(Transfer):
            if not transfer.status.over:
                reason = "The hub was stopped before the job was done."
                self._end(transfer.key, TransferStatus.FAILED, reason)
        await self._cut_off()

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise errors.ServiceUnavailable

    def _forget_old(self) -> None:
        oldest = self._clock.now() - timedelta(seconds=limits.JOB_HISTORY)
        # One runs at a time, so they have ended in the order in which they stand.
        old = [
            transfer.key
            for transfer in itertools.takewhile(
                lambda each: each.ended is not None and each.ended <= oldest,
                self._store.scan(Transfer),
            )
        ]
        if old:
            self._store.commit(delete=[(Transfer, key) for key in old])

    def _transfer(self, key: TransferKey) -> Transfer:
        transfer = self._store.get(Transfer, key)
        if transfer is None:
            raise errors.JobNotFound(key.id)
        return transfer

    def _block(self, error: type[errors.HubError], message: str) -> str:
        """Write a text as a real hub does for errors of these jobs: in several lines (seen there,
        with a tracking id that is empty).
        """
        lines = (
            f"Error: {error.code // 1000} ErrorCode: {error.__name__}",
            f"Message: {message}",
            f"Timestamp: {self._clock.now():%m/%d/%Y %H:%M:%S}",
            "Tracking ID: ",
        )
        return "\r\n".join(lines)

    # --- a job's life

    async def _prepare(self, order: Order) -> _Work:
        """Make sure of the containers, and read what there is to read.

        An import works on what its files held when it was asked for.

        Raises:
            BlobContainerValidationError
        """
        await self._blobs.check(order.output)
        if order.type is TransferType.EXPORT:
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

    async def _read(self, order: Order, name: str, what: str) -> bytes:
        try:
            return await self._blobs.read(order.input, name)
        except errors.BlobContainerValidationError as error:
            raise errors.BlobContainerValidationError(
                f"Failed to read {what} blob from the input container. {error.text}"
            ) from None

    async def _run(self, key: TransferKey, work: _Work) -> None:
        self._change(key, status=TransferStatus.RUNNING)
        try:
            await work(key)
        except errors.BlobContainerValidationError as error:  # the storage is not what it was
            self._end(key, TransferStatus.FAILED, error.text)
        except Exception:
            log.exception("The job %s failed", key.id)
            self._end(key, TransferStatus.FAILED, errors.ServerError.text)
        else:
            self._end(key, TransferStatus.COMPLETED)

    async def _export(self, order: Order, key: TransferKey) -> None:
        """Write a line for each identity; those that come or go meanwhile may be missing."""
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

    async def _import(self, order: Order, work: Import, key: TransferKey) -> None:
        """Carry out the lines; the job is completed even if some of them could not be."""
        await work.run(functools.partial(self._progress, key))
        # An empty file says that nothing went wrong (IoT Hub docs: clone a hub).
        await self._blobs.write(order.output, _ERRORS, b"".join(work.errors))

    async def _progress(self, key: TransferKey, percent: int) -> None:
        """Note how far a job is, and let other work have its turn."""
        if percent != self._transfer(key).progress:
            self._change(key, progress=percent)
        await asyncio.sleep(0)

    async def _cut_off(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _end(self, key: TransferKey, status: TransferStatus, reason: str | None = None) -> None:
        if self._transfer(key).status.over:  # it was cancelled while it ended
            return
        progress = {"progress": 100} if status is TransferStatus.COMPLETED else {}
        now = self._clock.now()
        self._change(key, status=status, ended=now, failure_reason=reason, **progress)
        log.info("The job %s is %s", key.id, status.value)

    def _change(self, key: TransferKey, **members: Any) -> None:
        self._store.commit(put=(replace(self._transfer(key), **members),))
