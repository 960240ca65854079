"""Files of certificates and keys, which a command writes: never over others by accident."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emulator.errors import ClientError
from emulator.net import files


def write(contents: Mapping[Path, bytes], *, advice: str, force: bool = False) -> None:
    """Write files that only this user can read; if one is there already, none is written.

    Args:
        contents: the content of each file.
        advice: what to do if a file is there already.
        force: replace such files.

    Raises:
        ClientError: a file is there already, or can't be written.
    """
    for file in contents:
        if file.exists() and not force:
            raise ClientError(f"{file} is there already. {advice}")
    for file, content in contents.items():
        try:
            files.write(file, content, mode=files.PRIVATE)
        except OSError as error:
            raise ClientError(f"Can't write {file}: {error.strerror or error}.") from None
