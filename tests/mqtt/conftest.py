"""Raw connections to the emulator, and callers of direct methods."""

from __future__ import annotations

import logging
import ssl
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests import support
from tests.devices import greeting
from tests.mqtt.playbook import Lab
from tests.mqtt.raw import Dial, Greet, Invoke, Online, Wire
from tests.support import Device, Service

_OURS = ("emulator", "amqtt", "asyncio")


@pytest.fixture(autouse=True)
def no_internal_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, it is never an error *of the emulator* in its log."""
    yield
    errors = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR and record.name.startswith(_OURS)
    ]
    assert not errors


@pytest.fixture(scope="session")
def trust(emulator: Emulator) -> ssl.SSLContext:
    """TLS as a device has it that trusts the emulator's CA."""
    return support.trust(emulator)


@pytest.fixture
def dial(emulator: Emulator, trust: ssl.SSLContext) -> Iterator[Dial]:
    with ExitStack() as wires:

        def open_wire(
            *, tls: ssl.SSLContext | None = trust, receive_buffer: int | None = None
        ) -> Wire:
            address = (emulator.host_name, emulator.mqtt_port)
            return wires.enter_context(Wire(address, tls, receive_buffer=receive_buffer))

        yield open_wire


@pytest.fixture
def greet(emulator: Emulator) -> Greet:
    def build(device: Device, **fields: Any) -> bytes:
        return greeting(emulator.host_name, device.id, device.key, **fields)

    return build


@pytest.fixture
def online(dial: Dial, greet: Greet) -> Online:
    def connect_device(device: Device, *filters: str, **fields: Any) -> Wire:
        wire = dial()
        wire.begin(greet(device, **fields), *filters)
        return wire

    return connect_device


@pytest.fixture
def other_device(emulator: Emulator) -> Device:
    """A second device that no other test knows."""
    return Device.of(emulator.register_device(f"other-{uuid.uuid4().hex[:12]}"))


@pytest.fixture
def invoke(service: Service) -> Iterator[Invoke]:
    """Invokes a direct method in a thread of its own."""
    with ThreadPoolExecutor(64) as threads:

        def start(
            device: Device, name: str, payload: object = None, **more: int
        ) -> Future[requests.Response]:
            body = {"methodName": name, "payload": payload, "responseTimeoutInSeconds": 10, **more}
            return threads.submit(service.request, "POST", f"/twins/{device.id}/methods", json=body)

        yield start


@pytest.fixture
def lab() -> Lab:
    """A hub without sockets."""
    return Lab()
