"""Places for blobs, and clients without an SDK."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator import Emulator
from tests.blobs.support import Blobs, Place


@pytest.fixture
def blobs(emulator: Emulator) -> Iterator[Blobs]:
    with Blobs(emulator) as client:
        yield client


@pytest.fixture
def place(emulator: Emulator) -> Place:
    """A place for a blob that no other test uses."""
    return Place.at(emulator, f"device-{uuid.uuid4().hex[:12]}/photo.jpg")


@pytest.fixture
def file(emulator: Emulator, place: Place) -> Path:
    """The file of the place."""
    folder = emulator.uploads_folder
    assert folder is not None
    return folder / place.name
