"""A hub without identities, its store, and its clock."""

import os

import pytest

from emulator.hub.hub import IotHub
from tests.clock import ManualClock
from tests.hub.fakes import CountingStore, make_hub


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With HUB_STORE=disk, leave out the tests that use no store."""
    if os.environ.get("HUB_STORE") == "disk":
        pure = [each for each in items if _is_pure(each)]
        config.hook.pytest_deselected(items=pure)
        items[:] = [each for each in items if each not in pure]


def _is_pure(item: pytest.Item) -> bool:
    names = vars(getattr(item, "module", None))
    return "/hub/" in item.path.as_posix() and not {"fakes", "make_hub", "HubStore", "Bench"} & {
        *names
    }


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def hub(store: CountingStore, clock: ManualClock) -> IotHub:
    return make_hub(store, clock)
