"""A hub without identities, its store, and its clock."""

import os

import pytest

from emulator.hub.hub import IotHub
from tests.clock import ManualClock
from tests.hub.fakes import CountingStore, make_hub

# What a module needs for a hub of its own.
_MAKERS = {"fakes", "make_hub", "HubStore", "CountingStore"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With HUB_STORE=disk, leave out the tests that use no store, and those of time."""
    if os.environ.get("HUB_STORE") == "disk":
        pure = [each for each in items if isinstance(each, pytest.Function) and _is_pure(each)]
        config.hook.pytest_deselected(items=pure)
        items[:] = [each for each in items if each not in pure]


def _is_pure(item: pytest.Function) -> bool:
    if "tests/hub/" not in item.path.as_posix():
        return False
    names = {*vars(item.module)} | {*item.fixturenames}
    return item.path.name == "test_load.py" or not names & (_MAKERS | {"hub", "store"})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def hub(store: CountingStore, clock: ManualClock) -> IotHub:
    return make_hub(store, clock)
