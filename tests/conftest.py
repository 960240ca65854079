"""One emulator for the whole run, and a device of its own for each test."""

from __future__ import annotations

import functools
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import settings

from emulator import Emulator, Settings
from emulator.testing.addresses import free_loopback_address
from tests.support import Device, Service, send_events

# Property tests take at most two seconds each; FUZZ_EXAMPLES raises the number of their examples.
# No deadline: an example can be slow on a busy machine.
settings.register_profile(
    "bounded", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")), deadline=None
)
settings.load_profile("bounded")


# With HUB_STORE=disk, the hub keeps its state in a file, as that of tests/hub does.
STORE = os.environ.get("HUB_STORE")


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A running emulator, which the SDKs in this process trust, and dial without a proxy."""
    settings = Settings(
        host=free_loopback_address(),
        https_port=0,
        devices=(),
        cert_dir=tmp_path_factory.mktemp("certificates"),
        # As the tests of the hub, see `tests/hub/fakes.py`.
        data_dir=tmp_path_factory.mktemp("state")
        if os.environ.get("HUB_STORE") == "disk"
        else None,
    )
    with Emulator(settings) as running:
        # The CA alone: requests reads the bundle of all public roots anew for each session.
        ca = str(running.ca_file)
        trust = {"SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca}
        with mock.patch.dict(os.environ, trust, NO_PROXY="*", no_proxy="*"):
            yield running


@pytest.fixture(scope="session")
def janitor(emulator: Emulator) -> Iterator[Service]:
    """A service that deletes what tests have made."""
    with Service(emulator) as client:
        yield client


@pytest.fixture
def device(emulator: Emulator, janitor: Service) -> Iterator[Device]:
    """A device that no other test knows."""
    device_id = f"device-{uuid.uuid4().hex[:12]}"
    yield Device.of(emulator.register_device(device_id))
    janitor.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})


@pytest.fixture(scope="session")
def service(janitor: Service) -> Service:
    """A service with every right, for all tests: it uses its connections again."""
    return janitor


@pytest.fixture
def send(emulator: Emulator, device: Device) -> Callable[..., None]:
    """Sends messages as the device, over HTTPS."""
    return functools.partial(send_events, emulator, device)


@pytest.fixture
def partition(emulator: Emulator, device: Device) -> str:
    """The partition of the device."""
    return emulator.hub.events.partition_of(device.id).id


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Let programs that tests start end on Ctrl-C, which a shell's background job ignores."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
