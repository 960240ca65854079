"""Files that are replaced whole, and files that other users cannot read."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
import time
from pathlib import Path

logger = logging.getLogger(__name__)

PRIVATE, PUBLIC = 0o600, 0o644
_PART = 1024**2  # bytes of one read: 1 MB


def holds(path: Path, content: bytes) -> bool:
    """Return whether a file has this content."""
    return path.exists() and path.read_bytes() == content


def read_named(path: Path, most: int, *, any_kind: bool = False) -> bytes:
    """Return the content of a file that a user has named.

    Args:
        path: the file.
        most: how many bytes it can have; whole MB.
        any_kind: read a pipe or a device as well, which can keep the caller waiting.

    Raises:
        OSError: it can't be read, is too large, or is not a regular file.
    """
    # The open of a pipe that nothing writes to would wait.
    wait = 0 if any_kind else getattr(os, "O_NONBLOCK", 0)
    content = bytearray()
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | wait)) as file:
        if not any_kind and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        while len(content) <= most and (part := file.read(_PART)):
            content += part
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // _PART} MB, which is the most")
    return bytes(content)


def write_change(path: Path, content: bytes) -> None:
    """Replace a public file, unless it has this content."""
    if not holds(path, content):
        write(path, content, mode=PUBLIC)


def write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file by a new one; only one process may do so at a time.

    A reader gets the whole old file or the whole new one. A private file is private from its first
    byte.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # left by a process that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(new, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        _replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def write_named(path: Path, content: bytes) -> None:
    """Write a private file that a user has named.

    A link is followed. A pipe or a device is written to: it must not be replaced by a file.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.write(content)
    else:
        write(path.resolve(), content, mode=PRIVATE)


def _replace(new: Path, path: Path) -> None:
    # Windows refuses while another process has the file open, as a starting emulator does briefly.
    for pause in (0.01, 0.1, 1.0) if sys.platform == "win32" else ():
        try:
            new.replace(path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    new.replace(path)


def make_private(file: Path) -> None:
    """Make sure that no other user can read a file, if it exists.

    Raises:
        PermissionError: other users can read it, and that can't be changed, as on a file system
            without modes.
    """
    # Windows has no modes: there the access list of the user's folder keeps the file private.
    if sys.platform == "win32" or not file.exists() or _is_private(file):
        return
    with contextlib.suppress(OSError):
        file.chmod(PRIVATE)
    if not _is_private(file):
        reason = f"other users can read the private key in {file.name}"
        raise PermissionError(errno.EACCES, reason, str(file))
    logger.warning(
        f"Other users could read the private key in {file}. Now only you can. If someone may have "
        f"copied it, delete {file.parent}: the next start makes new keys."
    )


def _is_private(file: Path) -> bool:
    return not file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
