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
        try:
            print(text, flush=True)
        except UnicodeEncodeError:
            # A stdout with few letters, or a path that is not UTF-8: as a file system has it. Of
            # the path in a variable, these are the right bytes.
            sys.stdout.buffer.write(in_bytes(f"{text}\n"))
            sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"Can't write the output: {error.strerror or error}.") from error


def in_bytes(text: str) -> bytes:
    """Return text for a file or a stdout: UTF-8, and the bytes of paths that are not UTF-8."""
    return text.encode(errors="surrogateescape")


def complain(text: str) -> None:
    """Write a line or more to stderr; what does not print is escaped.

    The text can have what a hub or a device sent. A stderr that can't be written changes nothing.
    """
    plain = "".join(
        each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text
    )
    try:
        print(plain, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def discard_output() -> None:
    """Discard what stdout still holds: Python would try once more at the end, with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
