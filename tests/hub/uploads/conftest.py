"""A hub with a storage for files, and a device."""

import pytest

from emulator.hub.hub import IotHub
from tests.clock import ManualClock
from tests.hub.fakes import DEVICE, CountingStore, make_hub, put
from tests.hub.uploads.shelf import Shelf


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def hub(store: CountingStore, clock: ManualClock, shelf: Shelf) -> IotHub:
    hub = make_hub(store, clock, upload_storage=shelf)
    put(hub, DEVICE)
    return hub
