"""The protocol of a container of blobs, and its errors."""

from __future__ import annotations

from typing import Protocol

from emulator.hub.core import limits


class StorageError(ValueError):
    """A setting of the storage is invalid. The text is one line, with the allowed values."""


class BlobError(Exception):
    """A container or a blob can't be used. The text has a hint for the user, and no secret."""


def check_size(content: bytes | bytearray) -> None:
    """Refuse the content of a blob that has too many bytes.

    Raises:
        BlobError
    """
    if len(content) > limits.TRANSFER_BLOB_BYTES:
        raise BlobError(f"The blob has more than {limits.TRANSFER_BLOB_BYTES} bytes.")


class Container(Protocol):
    """A container of blobs. Each method raises `BlobError`."""

    async def read(self, name: str) -> bytes:
        """Return the content of a blob of at most `limits.TRANSFER_BLOB_BYTES`."""

    async def write(self, name: str, content: bytes) -> None:
        """Write the whole of a blob, or nothing; a blob of this name is replaced."""

    async def delete(self, name: str) -> None:
        """Delete a blob."""
