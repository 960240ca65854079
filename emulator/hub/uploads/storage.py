"""What the hub needs of the storage for uploads; the storage itself is outside of the hub."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from msgspec import Struct


class Grant(Struct, frozen=True):
    """What lets a device write one blob.

    A device puts `https://`, the host, the container, the name of the blob and the token together
    (the SDKs).

    Args:
        host_name: `localhost:8444`, or `127.0.0.1:10000/devstoreaccount1`.
        container: the name of the container.
        sas_token: begins with `?`.
    """

    host_name: str
    container: str
    sas_token: str


class StoredBlob(Struct, frozen=True):
    """A blob that is in the storage.

    Args:
        uri: its URI, without a token.
        size: its size in bytes.
        modified: when it was last written.
    """

    uri: str
    size: int
    modified: datetime


class UploadStorage(Protocol):
    """The storage for the files of devices. The name of a blob is `{device id}/{name}`."""

    def grant(self, blob_name: str, start: datetime, expires: datetime) -> Grant:
        """Return what lets a device write a blob from a time until another one."""

    async def find(self, blob_name: str) -> StoredBlob | None:
        """Return a blob, or None if it is missing.

        Raises:
            HubError: the storage can't be reached.
        """
