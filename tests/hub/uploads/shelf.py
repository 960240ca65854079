"""A storage for files of devices that has no bytes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from emulator.hub.core.errors import HubError
from emulator.hub.uploads.storage import Grant, StoredBlob

MODIFIED = datetime(2026, 1, 31, 14, 46, 9, 123456, tzinfo=UTC)


@dataclass
class Shelf:
    """Grants every blob, and has those that a test puts onto it."""

    blobs: dict[str, StoredBlob] = field(default_factory=dict)
    granted: list[tuple[str, datetime, datetime]] = field(default_factory=list)
    error: HubError | None = None

    def grant(self, blob_name: str, start: datetime, expires: datetime) -> Grant:
        if self.error:
            raise self.error
        self.granted.append((blob_name, start, expires))
        return Grant("localhost:8444", "uploads", "?sv=1&sig=x")

    async def find(self, blob_name: str) -> StoredBlob | None:
        if self.error:
            raise self.error
        return self.blobs.get(blob_name)

    def put(self, blob_name: str, size: int = 3) -> None:
        uri = f"https://localhost:8444/uploads/{blob_name}"
        self.blobs[blob_name] = StoredBlob(uri, size, MODIFIED)
