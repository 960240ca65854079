"""Programs of a service's owner, and devices that register."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from tests.dps.support import Owner, Registrant
from tests.dps.webhook import Webhook


@pytest.fixture(autouse=True)
def no_internal_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, it is never an error *of the emulator* in its log."""
    yield
    errors = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR and record.name.startswith(("emulator", "asyncio"))
    ]
    assert not errors


@pytest.fixture(scope="session")
def owner(emulator: Emulator) -> Iterator[Owner]:
    with Owner(emulator) as client:
        yield client


@pytest.fixture(autouse=True)
def no_enrollment_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A query has pages of 100 enrollments: those of other tests would fill the first one."""
    yield
    if "owner" in request.fixturenames:
        request.getfixturevalue("owner").forget()


@pytest.fixture
def registrant(emulator: Emulator) -> Callable[..., Registrant]:
    """Makes devices of the emulator that register over HTTPS."""

    def make(registration_id: str, *arguments: Any, **options: Any) -> Registrant:
        return Registrant(emulator, registration_id, *arguments, **options)

    return make


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("provisioning")


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    running = Webhook()
    yield running
    running.close()
