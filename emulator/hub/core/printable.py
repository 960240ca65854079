"""Text that the hub did not write, made safe for a line of a log."""

from __future__ import annotations


def printable(value: object) -> str:
    """Return the text of a value; text with line ends, escape codes or the like is quoted.

    An id, a path or the reason of a refusal can hold what a client sent. Unquoted, it could forge a
    line of the log, or send commands to a terminal.
    """
    text = str(value)
    return text if text.isprintable() else repr(text)
