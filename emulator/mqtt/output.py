"""What a channel writes to."""

from __future__ import annotations

from typing import Protocol


class Output(Protocol):
    """Where a channel writes: a stream, or a list in tests."""

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting."""

    def close(self) -> None:
        """End the connection; what was written still goes out."""

    def unsent(self) -> int:
        """Return how many bytes wait for the device to read them."""
