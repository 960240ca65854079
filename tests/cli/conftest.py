"""A hub with two devices, which the commands find by its data folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.testing.addresses import free_loopback_address
from tests.processes import EmulatorConsole


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def host() -> str:
    return free_loopback_address()


@pytest.fixture(scope="module")
def hub(host: str, data_dir: Path) -> Iterator[EmulatorConsole]:
    options = ("--host", host, "--data-dir", data_dir, "--device", "kitchen", "--device", "cellar")
    with EmulatorConsole(*options) as console:
        yield console
