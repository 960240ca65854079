"""The tutorial's consoles. Its two long runs begin together, and run side by side.

Each has a device that reboots for 20 seconds, as the tutorial says; the tests that need no reboot
pass meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import (
    DEVICE_SCRIPT,
    SERVICE_SCRIPT,
    Console,
    EmulatorConsole,
)
from tests.support import free_loopback_address


@dataclass
class Consoles:
    """The tutorial's two windows, and the one of the hub."""

    hub: EmulatorConsole
    device: Console
    service: Console


@pytest.fixture(scope="session")
def tutorial_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """`python -m emulator tutorial`, on the way to its end."""
    pytest.importorskip(
        "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
    )
    options = ("--host", free_loopback_address(), "--data-dir", tmp_path_factory.mktemp("command"))
    with Console("-m", "emulator", "tutorial", *options) as command:
        command.wait_for(r"hub     \| ready at .*")
        yield command


@pytest.fixture(scope="session")
def hub_options(
    tutorial_command: Console, tmp_path_factory: pytest.TempPathFactory
) -> list[str | Path]:
    """The options of the hub that the consoles reach: the same at each of its starts."""
    place = ["--host", free_loopback_address(), "--data-dir", tmp_path_factory.mktemp("hub")]
    return [*place, "--device", "myDeviceId", "--device", "spare"]


@pytest.fixture(scope="session")
def consoles(hub_options: list[str | Path]) -> Iterator[Consoles]:
    """A hub, the device, and the service, which has just called the device."""
    with ExitStack() as stack:
        hub = stack.enter_context(EmulatorConsole(*hub_options))
        device = stack.enter_context(Console(DEVICE_SCRIPT, environment=hub.environment()))
        hub.wait_for_device("myDeviceId")
        service = stack.enter_context(Console(SERVICE_SCRIPT, environment=hub.environment()))
        yield Consoles(hub, device, service)
