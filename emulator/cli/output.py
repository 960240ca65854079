"""The output of the command, which can be a full disk, or a pipe that nothing reads any more."""

from __future__ import annotations

import os
import sys


class OutputError(Exception):
    """The output can't be written. The text is one line."""


def say(text: str) -> None:
    """Write a line or more to stdout, at once.

    Raises:
        OutputError
    """
    try:
        print(text, flush=True)
    except OSError as error:
        raise OutputError(f"Can't write the output: {error.strerror or error}.") from error


def discard_output() -> None:
    """Discard what stdout still holds: Python would try once more at the end, with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
