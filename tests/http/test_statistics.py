"""Statistics over REST, of a hub that no other test uses."""

from collections.abc import Iterator

import pytest

from emulator import Emulator
from tests.http import support
from tests.messages import greet_module, put_module
from tests.mqtt.raw import Wire, connack
from tests.support import Service, second_hub

DEVICES, CONNECTED = "/statistics/devices", "/statistics/service"


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    with second_hub(emulator) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


def test_devices_are_counted(service: Service) -> None:
    before = support.read(service, DEVICES)
    support.put_device(service, "on")
    support.put_device(service, "off", status="disabled")
    support.put_device(service, "edge", **support.EDGE)
    put_module(service, "on")  # modules, and those of the hub itself, are not counted
    after = support.read(service, DEVICES)
    counts = {"totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1}
    assert {name: after[name] - before[name] for name in before} == counts
    assert list(before) == list(counts)
    for device_id in ("on", "off", "edge"):
        service.request("DELETE", f"/devices/{device_id}", headers=support.ANY)
    assert support.read(service, DEVICES) == before


def test_connected_devices_are_counted(service: Service, hub: Emulator) -> None:
    device = support.register(hub, "talker")
    assert support.read(service, CONNECTED) == {"connectedDeviceCount": 0}
    module = put_module(service, "talker")
    with (
        support.MethodDevice(hub, device, support.silence),
        Wire((hub.host_name, hub.mqtt_port), support.trust(hub)) as wire,
    ):
        wire.send(greet_module(hub, module))
        wire.expect(connack(0))
        assert support.read(service, CONNECTED) == {"connectedDeviceCount": 1}
        service.request("DELETE", "/devices/talker", headers=support.ANY)
        assert support.read(service, CONNECTED) == {"connectedDeviceCount": 0}
