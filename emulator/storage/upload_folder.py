"""Uploads into a folder of this machine, which the emulator itself serves as a blob container."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock, Timer
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Key, Store
from emulator.hub.uploads.storage import Grant, StoredBlob
from emulator.storage.files import in_thread

if TYPE_CHECKING:
    from emulator.storage.blob_folder import BlobFolder

log = logging.getLogger(__name__)

_T = TypeVar("_T")

CONTAINER = "iothub-uploads"
# In the string to sign only.
ACCOUNT = "emulator"

# Uploads wait for the disk, not for a processor.
_THREADS = 4
_SWEEP_SECONDS = 60 * 60
_KEY = ("uploads",)


class UploadKey(Struct, frozen=True):
    """The key that signs the tokens of a hub: tokens outlive a restart, and serve no other hub."""

    secret: str

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return _KEY

    @property
    def decoded(self) -> bytes:
        """The key itself."""
        return bytes.fromhex(self.secret)


class UploadFolder:
    """The folder of an emulator, and the threads that work in it.

    Args:
        folder: the folder; None is a temporary one, which `close` removes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._is_temporary = folder is None
        self._blobs: BlobFolder | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._making = threading.RLock()

    @property
    def path(self) -> Path:
        """The folder; a temporary one is made when it is first needed."""
        with self._making:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="iothub-uploads-")).resolve()
            return self._folder

    async def run(self, work: Callable[[BlobFolder], _T]) -> _T:
        """Work on the blobs in a thread. A request that is cancelled waits for the end of the work.

        Raises:
            OSError: the system refuses a call.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="uploads")
        return await in_thread(functools.partial(self._run, work), self._threads)

    def _run(self, work: Callable[[BlobFolder], _T]) -> _T:
        # Imported here, as all of the work on blobs: most hubs have no uploads.
        from emulator.storage.blob_folder import BlobFolder

        with self._making:
            if self._blobs is None:
                self._blobs = BlobFolder(self.path)
        return work(self._blobs)

    async def clear(self) -> None:
        """Remove the blobs of a temporary folder, for a hub that begins anew."""
        if self._is_temporary and self._blobs is not None:
            await self.run(lambda blobs: blobs.clear())

    def close(self) -> None:
        """End the threads, and remove a temporary folder."""
        if self._threads is not None:
            self._threads.shutdown()
        if self._is_temporary and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class FolderUploads:
    """The uploads of one hub (see `UploadStorage`).

    Args:
        folder: the folder.
        host_name: host and port at which the emulator serves it.
        clock: the clock of the hub, by which tokens expire.
        store: the store of the hub, which has the key.
    """

    def __init__(self, folder: UploadFolder, host_name: str, clock: Clock, store: Store) -> None:
        self.folder = folder
        self.clock = clock
        self._host_name = host_name
        self._store = store
        self._timer: Timer | None = None
        self._is_staged = False  # since the last sweep began
        self._sweeps: set[asyncio.Task[None]] = set()

    def grant(self, blob_name: str, start: datetime, expires: datetime) -> Grant:
        """See `UploadStorage.grant`. The token is valid at once, as those of a real hub."""
        from emulator.storage.blob_sas import READ, WRITE, Blob, sign

        self.sweep_later()  # an earlier run can have left blocks
        blob = Blob(ACCOUNT, CONTAINER, blob_name)
        token = sign(blob, self._key(), READ + WRITE, expires)
        return Grant(self._host_name, CONTAINER, token)

    async def find(self, blob_name: str) -> StoredBlob | None:
        """See `UploadStorage.find`."""
        try:
            found = await self.folder.run(lambda blobs: blobs.find(blob_name))
        except OSError as error:
            log.warning("Can't read the folder of uploads: %s", printable(error))
            raise ServiceUnavailable("The folder of uploads can't be read.") from None
        if found is None:
            return None
        uri = f"https://{self._host_name}/{CONTAINER}/{quote(blob_name)}"
        return StoredBlob(uri, found.size, found.modified)

    def verify(self, query: str, container: str, blob_name: str) -> Mapping[str, str]:
        """Verify the token of a request: see `blob_sas.verify`.

        Raises:
            SasError: the token is invalid.
        """
        from emulator.storage.blob_sas import Blob, SasError, verify

        key = self._store.get(UploadKey, _KEY)
        if key is None:
            raise SasError("The hub has not signed any token yet.")
        return verify(query, Blob(ACCOUNT, container, blob_name), key.decoded, self.clock.now())

    def sweep_later(self) -> None:
        """Delete blocks a week after an upload was abandoned, as the service does."""
        self._is_staged = True
        if self._timer is None:
            self._set_timer()

    def stop(self) -> None:
        """End the sweeps: another hub, with a clock of its own, has replaced this one."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self._timer = self.clock.call_later(_SWEEP_SECONDS, self._begin_sweep)

    def _begin_sweep(self) -> None:
        self._set_timer()
        self._is_staged = False
        sweep = asyncio.get_running_loop().create_task(self._sweep())
        self._sweeps.add(sweep)
        sweep.add_done_callback(self._sweeps.discard)

    async def _sweep(self) -> None:
        before = self.clock.now() - timedelta(seconds=limits.UPLOAD_BLOCK_LIFE)
        try:
            left = await self.folder.run(lambda blobs: blobs.sweep(before))
        except OSError as error:
            log.warning("Can't delete old blocks of uploads: %s", printable(error))
            left = True
        if not left and not self._is_staged and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _key(self) -> bytes:
        key = self._store.get(UploadKey, _KEY)
        if key is None:
            key = UploadKey(secrets.token_hex(32))
            self._store.commit(put=(key,))
        return key.decoded
