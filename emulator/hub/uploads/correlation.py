"""Correlation ids: a device names by one the upload that it has started.

An id is Base64 of a text: minute, GUID, name of the blob, version. Decoded, the sample of IoT Hub
docs (upload files) is `202107300621_0b6808ed-…_myfile.txt_ver2.0`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import uuid
from datetime import UTC, datetime

from emulator.hub.core.errors import InvalidFileUploadCorrelationId, IotHubFormatError

_MINUTE = "%Y%m%d%H%M"
_FORM = re.compile(rb"(\d{12})_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}_.*_ver2\.0", re.DOTALL)


def new_id(blob_name: str, now: datetime) -> str:
    """Return an id that no other upload has."""
    text = f"{now:{_MINUTE}}_{uuid.uuid4()}_{blob_name}_ver2.0"
    return base64.b64encode(text.encode()).decode()


def minute_of(correlation_id: str) -> datetime:
    """Return the minute in which the upload with an id was started.

    Raises:
        IotHubFormatError: the id is not Base64; a real hub answers `invalid-correlation-id` with
            this code (end-to-end tests of the SDK for C#).
        InvalidFileUploadCorrelationId: it is the Base64 of something else.
    """
    try:
        text = base64.b64decode(correlation_id, validate=True)
    except ValueError:
        raise IotHubFormatError(
            "The correlation id is not one of a file upload. Use the correlationId of the answer "
            "to the start of the upload"
        ) from None
    with contextlib.suppress(ValueError):  # the digits are not a time
        if found := _FORM.fullmatch(text):
            return datetime.strptime(found[1].decode(), _MINUTE).replace(tzinfo=UTC)
    raise InvalidFileUploadCorrelationId
