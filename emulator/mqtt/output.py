"""What a channel writes to."""

from __future__ import annotations

from typing import Protocol

from emulator.hub.core.clock import TimeSource


class Output(Protocol):
    """Where a channel writes: a stream, or a list in tests."""

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting."""

    def close(self) -> None:
        """End the connection; what was written still goes out."""

    def abort(self) -> None:
        """Cut the connection; what was written can be lost."""

    def unsent(self) -> int:
        """Return how many bytes wait for the device to read them."""

    def pace(self, rate: int | None, clock: TimeSource) -> None:
        """Send and read at most so many bytes in a second; None ends that."""
