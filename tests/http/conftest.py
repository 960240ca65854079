"""Devices that answer, and threads for calls that wait."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator import Emulator
from tests.http.support import MethodDevice, echo, registered
from tests.support import Device, Service


@pytest.fixture
def other(emulator: Emulator, janitor: Service) -> Iterator[Device]:
    """A second device that no other test uses."""
    with registered(emulator, janitor) as device:
        yield device


@pytest.fixture(scope="module")
def connected_echo(emulator: Emulator, janitor: Service) -> Iterator[MethodDevice]:
    with (
        registered(emulator, janitor, "echoing") as device,
        MethodDevice(emulator, device, echo) as connected,
    ):
        yield connected


@pytest.fixture
def echoing(connected_echo: MethodDevice) -> MethodDevice:
    """A connected device, `echoing`, which answers each call with its payload."""
    while not connected_echo.calls.empty():  # a test that failed can leave calls behind
        connected_echo.calls.get_nowait()
    return connected_echo


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls that stay open."""
    with ThreadPoolExecutor(8) as executor:
        yield executor
