"""Files that a user has named: how much of them is read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from emulator.net.files import read_named
from tests.processes import posix_only

MEGABYTE = 1024**2


@pytest.mark.parametrize("size", [0, 1, MEGABYTE, 2 * MEGABYTE])
def test_a_file_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    assert read_named(file, 2 * MEGABYTE) == b"x" * size


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (MEGABYTE + 1))
    with pytest.raises(OSError, match="it is larger than 1 MB, which is the most"):
        read_named(file, MEGABYTE)


@posix_only
def test_a_device_is_refused_or_read_to_the_limit() -> None:
    with pytest.raises(OSError, match="it is not a regular file"):
        read_named(Path("/dev/zero"), MEGABYTE)
    with pytest.raises(OSError, match="it is larger than 1 MB"):
        read_named(Path("/dev/zero"), MEGABYTE, any_kind=True)
    with pytest.raises(IsADirectoryError):
        read_named(Path("/"), MEGABYTE)


@posix_only
def test_a_pipe_is_refused_or_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="it is not a regular file"):
        read_named(pipe, MEGABYTE)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"content"), daemon=True)
    writer.start()
    assert read_named(pipe, MEGABYTE, any_kind=True) == b"content"
