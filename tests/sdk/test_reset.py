"""What unmodified SDKs do when a hub is reset or restored: they connect again, and go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from azure.eventhub import EventData, EventHubConsumerClient
from azure.iot.device import IoTHubDeviceClient

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests.messages import bodies
from tests.sdk.conftest import open_registry
from tests.support import (
    PATIENCE,
    Device,
    Service,
    second_hub,
    wait_until,
)


@pytest.fixture
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub of its own, at an address where SDKs find port 8883, with the device `first`."""
    host = free_loopback_address()
    with second_hub(emulator, host=host, mqtt_port=8883, devices=("first",)) as running:
        yield running


@pytest.fixture
def device(hub: Emulator) -> Device:
    """The device that each reset registers again."""
    return Device.of(hub.device_connection_string("first"))


def test_a_device_of_the_settings_connects_again(
    hub: Emulator, client: IoTHubDeviceClient, device: Device, tmp_path: Path
) -> None:
    ended, begun = threading.Event(), threading.Event()
    client.on_connection_state_change = lambda: (begun if client.connected else ended).set()
    client.send_message("before")
    hub.snapshot(tmp_path / "snapshot")
    for change, expected in (
        (hub.reset, ["after"]),
        (lambda: hub.restore(tmp_path / "snapshot"), ["before", "after"]),
    ):
        ended.clear()
        begun.clear()
        change()
        assert ended.wait(PATIENCE)
        assert begun.wait(PATIENCE)
        client.send_message("after")
        with Service(hub) as service:
            assert bodies(service, device.id) == expected
            assert service.state(device.id) == "Connected"


def test_a_service_goes_on(hub: Emulator, device: Device) -> None:
    registry = open_registry(hub.service_connection_string)
    registry.create_device_with_sas("d2", "", "", "enabled")
    hub.reset()
    assert [each.device_id for each in registry.get_devices()] == [device.id]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_reader_of_events_goes_on(
    hub: Emulator, client: IoTHubDeviceClient, device: Device
) -> None:
    reader = EventHubConsumerClient.from_connection_string(
        hub.event_hubs_connection_string, "$Default"
    )
    received: list[str] = []

    def take(_: object, event: EventData | None) -> None:
        if event is not None:
            received.append(event.body_as_str())

    with reader, ThreadPoolExecutor(1) as thread:
        reading = thread.submit(reader.receive, take, starting_position="-1", max_wait_time=1)
        try:
            client.send_message("before")
            wait_until(lambda: received == ["before"])
            hub.reset()
            hub.wait_until_connected(device.id, timeout=PATIENCE)  # the client may not know yet
            wait_until(lambda: bool(client.connected))
            client.send_message("after")
            wait_until(lambda: received == ["before", "after"])
        finally:
            reader.close()
            reading.result(PATIENCE)
