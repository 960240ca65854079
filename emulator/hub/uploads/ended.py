"""The latest uploads that devices have reported: what tests look at."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso
from emulator.hub.feed import Feed
from emulator.hub.uploads.storage import StoredBlob
from emulator.hub.uploads.upload import Report, Upload, UploadEnded


class EndedUpload(Struct, frozen=True):
    """An upload that its device has reported.

    Args:
        number: counts the reports of this run of the hub, from 0.
        upload: the upload.
        report: what the device has reported.
        blob: the file in the storage; None after a failure.
        time: when it was reported.
    """

    number: int
    upload: Upload
    report: Report
    blob: StoredBlob | None
    time: datetime

    def document(self) -> JsonObject:
        """Return the upload as JSON."""
        return {
            "number": self.number,
            "deviceId": self.upload.device_id,
            "name": self.upload.name,
            "isSuccess": self.report.is_success,
            "statusCode": self.report.status_code,
            "statusDescription": self.report.status_description,
            "blobUri": self.blob and self.blob.uri,
            "blobSizeInBytes": self.blob.size if self.blob else None,
            "reportedTime": iso(self.time),
        }


class EndedUploads:
    """The latest reported uploads of a hub; `limits.UPLOADS_KEPT` bounds them."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._clock = clock
        self._number = 0
        self._latest: deque[EndedUpload] = deque(maxlen=limits.UPLOADS_KEPT)
        feed.subscribe(UploadEnded, self._keep)

    def find(self, device_id: str, name: str | None, start: int) -> EndedUpload | None:
        """Return the first upload of a device from a number on.

        Args:
            device_id: the device.
            name: the name of the file; None is any.
            start: the number.
        """
        found = (
            each
            for each in self._latest
            if each.number >= start
            and each.upload.device_id == device_id
            and name in (None, each.upload.name)
        )
        return next(found, None)

    def _keep(self, change: UploadEnded) -> None:
        now = self._clock.now()
        ended = EndedUpload(self._number, change.upload, change.report, change.blob, now)
        self._latest.append(ended)
        self._number += 1
