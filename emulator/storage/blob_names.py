"""Names of blobs as names of files: valid on every system, and leading nowhere else.

The name of a blob is the id of a device, a slash, and up to 1,024 characters of anything. A segment
that is harmless stays as it is, so that a person finds the file. Another one becomes what can be
read of it, a tilde, and a hash: `sensor:1` is `sensor_1~4f…`. A harmless segment has no tilde, so
no two names of blobs become the same file; nor does the short name that Windows gives to a file.
Names that differ only by letter case are the same file on some systems: see `BlobFolder`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from emulator.storage.folder import DEVICE

# No leading dot: so are our own files named. A space stands inside only, because Windows drops
# spaces and dots at the end.
_HARMLESS = re.compile(
    r"[A-Za-z0-9_@+=,$#()\-]([A-Za-z0-9_.@+=,$#() \-]*[A-Za-z0-9_@+=,$#()\-])?", re.ASCII
)
_OTHER = re.compile(r"[^A-Za-z0-9_@+=,$#()\-]+", re.ASCII)
# The end of a name by which programs know what is in a file.
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}", re.ASCII)

# A path on Windows has 260 characters, and there is a folder in front of it. A name on Linux has
# 255.
_SEGMENT_LENGTH = 100
_PATH_LENGTH = 160
_READABLE_LENGTH = 40


def file_of(name: str) -> PurePosixPath:
    """Return the relative path of the file of a blob."""
    path = PurePosixPath(*(_segment(each) for each in name.split("/")))
    return path if len(str(path)) <= _PATH_LENGTH else other_file_of(name)


def other_file_of(name: str) -> PurePosixPath:
    """Return the path to use if the usual one is too long, or if something else is there."""
    return PurePosixPath(_hashed(name))


def digest(name: str) -> str:
    """Return a name of a file that stands for a blob, for our own use."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _segment(segment: str) -> str:
    harmless = _HARMLESS.fullmatch(segment) and len(segment) <= _SEGMENT_LENGTH
    return segment if harmless and not DEVICE.fullmatch(segment) else _hashed(segment)


def _hashed(name: str) -> str:
    stem, suffix = name, ""
    # `.jpg`, where the rest is not empty.
    if (dot := name.rfind(".")) > 0 and _SUFFIX.fullmatch(name[dot:]):
        stem, suffix = name[:dot], name[dot:]
    # On no system is `con~…` the name of a device.
    readable = _OTHER.sub("_", stem)[:_READABLE_LENGTH]
    return f"{readable}~{digest(name)[:32]}{suffix}"
