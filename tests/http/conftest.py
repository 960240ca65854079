"""One service for all tests of the REST head: most of their time would be handshakes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emulator import Emulator
from tests.support import Service


@pytest.fixture(scope="session")
def service(emulator: Emulator) -> Iterator[Service]:
    """A service with every right, over plain HTTPS."""
    client = Service(emulator)
    yield client
    client.close()
