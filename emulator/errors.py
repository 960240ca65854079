"""The errors of an emulator that does not start, and of a request to one."""

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


class ClientError(Exception):
    """A request failed. The text is one line.

    Args:
        text: what is wrong, and what to do.
        status: the HTTP status; None without an answer.
        code: the error code of the service, such as DeviceNotFound; "" without one.
    """

    def __init__(self, text: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class ConnectionStringError(ClientError):
    """The connection string of a service is malformed. The text is one line."""


class SnapshotError(Exception):
    """A snapshot can't be written, or it can't be restored. The text is one line."""
