"""One emulator for the whole run, and a device of its own for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from unittest import mock

import pytest

from emulator import Emulator, Settings
from tests.support import Device, Service, free_loopback_address


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A running emulator, which the SDKs in this process trust."""
    settings = Settings(
        host=free_loopback_address(),
        https_port=0,
        devices=(),
        cert_dir=tmp_path_factory.mktemp("certificates"),
    )
    with Emulator(settings) as running:
        bundle = str(running.ca_bundle)
        trust = {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}
        with mock.patch.dict(os.environ, trust):
            yield running


@pytest.fixture
def device(emulator: Emulator) -> Device:
    """A device that no other test knows."""
    device_id = f"device-{uuid.uuid4().hex[:12]}"
    connection_string = emulator.register_device(device_id)
    key = connection_string.partition(";SharedAccessKey=")[2]
    return Device(device_id, key, connection_string)


@pytest.fixture
def service(emulator: Emulator) -> Iterator[Service]:
    """A service with every right, over plain HTTPS."""
    client = Service(emulator)
    yield client
    client.close()
