"""Files in a folder that a person can change meanwhile: found, opened, and worked on in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO, TypeVar

_T = TypeVar("_T")

# A link leads elsewhere. A device without an end, or a pipe without a writer, must not block.
# Not every system has each flag.
_READ_FLAGS = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
)


def resolved(path: Path) -> Path | None:
    """Return a path without links; None if nothing is there."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it; it can be something else than a regular file.

    Raises:
        OSError: it is missing, or a link.
    """
    return os.fdopen(os.open(path, _READ_FLAGS), "rb")


async def in_thread(work: Callable[[], _T], threads: Executor | None = None) -> _T:
    """Work on files in a thread. A caller that is cancelled waits for the end of the work.

    Args:
        work: the work.
        threads: where it is done; None is the executor of the event loop.

    Raises:
        OSError: the system refuses a call.
    """
    doing = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        if not doing.cancelled():
            doing.exception()  # its error was retrieved: asyncio must not log it
        raise
