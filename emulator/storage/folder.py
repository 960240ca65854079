"""A container that is a folder."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from emulator.hub.core import limits
from emulator.storage.container import BlobError, StorageError, check_size
from emulator.storage.files import in_thread, open_file, resolved

_T = TypeVar("_T")

# `file:///NAME`. SDKs pass it on as it is.
FOLDER_URI = re.compile(r"file:///([^/]+)/?", re.ASCII)
# A name of a folder or file that is valid on every system and leads nowhere else. The names of our
# temporary files do not match.
_NAME = re.compile(r"[A-Za-z0-9_$-][A-Za-z0-9_.$-]{0,127}", re.ASCII)
# The names of devices on Windows, in every folder.
DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d) *(\..*)?", re.I | re.ASCII)


class FolderContainer:
    """A folder, whose files are blobs. It is a child of the folder of `--storage`.

    Args:
        root: the root folder, resolved.
        name: the name of the folder in it, valid by `checked_name`. The folder is resolved at each
            call, because it can be deleted meanwhile, or replaced by a link.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name

    async def read(self, name: str) -> bytes:
        """See `Container.read`."""
        return await _work(lambda: self._read(checked_name(name)))

    async def write(self, name: str, content: bytes) -> None:
        """See `Container.write`."""
        await _work(lambda: self._write(checked_name(name), content))

    async def delete(self, name: str) -> None:
        """See `Container.delete`."""
        await _work(lambda: (self._locate() / checked_name(name)).unlink())

    def _locate(self) -> Path:
        folder = resolved(self._root / self._name)
        if folder is None or folder.parent != self._root or not folder.is_dir():
            raise BlobError(f"There is no folder {self._name} in the folder of --storage. Make it.")
        return folder

    def _read(self, name: str) -> bytes:
        folder = self._locate()
        try:
            file = (folder / name).resolve(strict=True)
        except RuntimeError:
            file = None
        if file is None or file.parent != folder:
            raise BlobError(f"{name} leads out of its folder.")
        with open_file(file) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise BlobError(f"{name} is not a file.")
            content = opened.read(limits.TRANSFER_BLOB_BYTES + 1)
        check_size(content)
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Write a new file, and replace the old one by it. Only its owner can read it."""
        folder = self._locate()
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - it is open already
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


async def _work(work: Callable[[], _T]) -> _T:
    """Work on files in a thread.

    Raises:
        BlobError
    """
    try:
        return await in_thread(work)
    except OSError as error:
        raise BlobError(f"The system says: {error.strerror or type(error).__name__}.") from None


def checked_name(name: str) -> str:
    """Return the name of a folder or file, if it is valid on every system.

    Raises:
        BlobError: the name is invalid.
    """
    if not _NAME.fullmatch(name) or name.endswith(".") or DEVICE.fullmatch(name):
        raise BlobError(
            f"{name[: limits.ID_LENGTH]!r} can't be the name of a folder or file. Use letters, "
            "digits, $, - and _. A dot can stand inside the name."
        )
    return name


def real_folder(folder: Path) -> Path:
    """Resolve the root folder.

    Raises:
        StorageError: the folder does not exist.
    """
    real = resolved(folder)
    if real is None or not real.is_dir():
        raise StorageError(
            f"There is no folder {folder}. Make it, or use another one: --storage DIR."
        )
    return real
