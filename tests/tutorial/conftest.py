"""The consoles of the tutorial, in three runs that go on side by side while the other tests pass.

A device reboots for 20 seconds, as in the tutorial, and the SDK connects again after 10 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from emulator.testing.addresses import free_loopback_address
from tests.processes import DEVICE_SCRIPT, SERVICE_SCRIPT, Console, EmulatorConsole


@dataclass
class Consoles:
    """The windows of the hub, the device and the service."""

    hub: EmulatorConsole
    device: Console
    service: Console | None = None


@pytest.fixture(scope="session")
def needs_service_sdk() -> None:
    """Skip a test where azure-iot-hub cannot be installed."""
    if find_spec("uamqp") is None:
        pytest.skip("azure-iot-hub needs uamqp, which has no wheel for this machine")


@pytest.fixture(scope="session")
def tutorial_command(
    needs_service_sdk: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    """`python -m emulator tutorial`, which ends by itself."""
    options = ("--host", free_loopback_address(), "--data-dir", tmp_path_factory.mktemp("command"))
    with Console("-m", "emulator", "tutorial", *options) as command:
        yield command


@pytest.fixture(scope="session")
def consoles(
    needs_service_sdk: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Consoles]:
    """A hub, the device, and the service, which calls the device."""
    options = ("--host", free_loopback_address(), "--data-dir", tmp_path_factory.mktemp("hub"))
    with ExitStack() as stack:
        hub = stack.enter_context(EmulatorConsole(*options))
        device = stack.enter_context(Console(DEVICE_SCRIPT, environment=hub.environment()))
        hub.wait_for_listener("myDeviceId")
        service = stack.enter_context(Console(SERVICE_SCRIPT, environment=hub.environment()))
        yield Consoles(hub, device, service)


@pytest.fixture(scope="session")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consoles]:
    """A hub that stopped and started again while the device was connected."""
    options = ("--host", free_loopback_address(), "--data-dir", tmp_path_factory.mktemp("restart"))
    with ExitStack() as stack:
        first = stack.enter_context(EmulatorConsole(*options))
        device = stack.enter_context(Console(DEVICE_SCRIPT, environment=first.environment()))
        first.wait_for_listener("myDeviceId")
        assert first.terminate() == 0
        assert first.errors == []
        yield Consoles(stack.enter_context(EmulatorConsole(*options)), device)


@pytest.fixture(scope="session", autouse=True)
def _begin_the_long_runs(request: pytest.FixtureRequest) -> None:
    """Start the runs that a selected test needs before the first test."""
    needed = {name for item in request.session.items for name in item.fixturenames}
    for name in ("tutorial_command", "consoles", "restarted"):
        if name in needed:
            request.getfixturevalue(name)
