"""Statistics over REST, of a hub that nothing else uses."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from emulator import Emulator
from tests.http.support import MethodDevice, check_error, put_device, silence
from tests.messages import greet_module, put_module
from tests.mqtt.raw import Wire, connack
from tests.support import Device, Service

DEVICES, CONNECTED = "/statistics/devices", "/statistics/service"


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    settings = replace(emulator.settings, mqtt_port=0, https_port=0)
    with Emulator(settings) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    client = Service(hub)
    yield client
    client.close()


def read(service: Service, path: str) -> dict[str, Any]:
    response = service.request("GET", path)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    document: dict[str, Any] = response.json()
    return document


def test_devices_are_counted(service: Service) -> None:
    before = read(service, DEVICES)
    assert list(before) == ["totalDeviceCount", "enabledDeviceCount", "disabledDeviceCount"]
    put_device(service, "on")
    put_device(service, "off", status="disabled")
    put_device(service, "edge", capabilities={"iotEdge": True})
    put_module(service, "on")  # modules, the hub's own too, are not counted
    after = read(service, DEVICES)
    assert {name: after[name] - before[name] for name in before} == {
        "totalDeviceCount": 3,
        "enabledDeviceCount": 2,
        "disabledDeviceCount": 1,
    }
    for device_id in ("on", "off", "edge"):
        service.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})
    assert read(service, DEVICES) == before


def test_devices_that_are_connected_are_counted(service: Service, hub: Emulator) -> None:
    connection_string = hub.register_device("talker")
    device = Device("talker", connection_string.partition(";SharedAccessKey=")[2], "")
    assert read(service, CONNECTED) == {"connectedDeviceCount": 0}
    module = put_module(service, "talker")
    context = ssl.create_default_context(cafile=str(hub.ca_file))
    with (
        MethodDevice(hub, device, silence),
        Wire((hub.host_name, hub.mqtt_port), context) as wire,
    ):
        wire.send(greet_module(hub, module))
        wire.expect(connack(0))
        assert read(service, CONNECTED) == {"connectedDeviceCount": 1}
        service.request("DELETE", "/devices/talker", headers={"If-Match": "*"})
        assert read(service, CONNECTED) == {"connectedDeviceCount": 0}


@pytest.mark.parametrize("path", [DEVICES, CONNECTED])
@pytest.mark.parametrize(
    ("policy", "allowed"),
    [("registryRead", True), ("registryReadWrite", True), ("service", True), ("device", False)],
)
def test_statistics_are_for_services(hub: Emulator, path: str, policy: str, allowed: bool) -> None:
    caller = Service(hub, policy)
    answer = caller.request("GET", path)
    if allowed:
        assert answer.status_code == 200
    else:
        check_error(answer, 401, "IotHubUnauthorizedAccess")
    caller.close()


@pytest.mark.parametrize("path", [DEVICES, CONNECTED])
def test_statistics_are_read_and_not_written(service: Service, path: str) -> None:
    check_error(service.request("POST", path, json={}), 405, "GenericMethodNotAllowed")
