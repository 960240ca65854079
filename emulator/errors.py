"""The errors of an emulator that does not run."""

from __future__ import annotations


class StartError(Exception):
    """The emulator can't start. The text is one line: what is wrong, and what to do.

    Args:
        text: for a program, with the names of fields of `Settings`.
        command: for the command, with the names of its options; None stands for the same text.
    """

    def __init__(self, text: str, *, command: str | None = None) -> None:
        super().__init__(text)
        self.command = command or text
