"""A hub without identities, its store, and its clock."""

import pytest

from emulator.hub.hub import IotHub
from tests.clock import ManualClock
from tests.hub.fakes import CountingStore, make_hub


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def hub(store: CountingStore, clock: ManualClock) -> IotHub:
    return make_hub(store, clock)
