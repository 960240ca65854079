"""A hub with storage."""

import pytest

from emulator.hub.hub import IotHub
from tests.clock import ManualClock, TickingClock
from tests.hub.fakes import CountingStore, make_hub
from tests.hub.import_export.depot import Box


@pytest.fixture
def clock() -> ManualClock:
    return TickingClock()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def hub(store: CountingStore, clock: ManualClock, box: Box) -> IotHub:
    return make_hub(store, clock, blobs=box)
