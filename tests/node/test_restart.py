"""azure-iot-device over AMQP while the hub restarts: it connects again, and attaches its links."""

from __future__ import annotations

import sys
import time

import pytest

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests.messages import send
from tests.node.conftest import AMQPS_PORT, Node
from tests.support import Device, Service, second_hub


def test_a_device_connects_again(node: Node, emulator: Emulator) -> None:
    if sys.platform == "darwin":
        pytest.skip("another emulator has the only loopback address")
    options = {"host": free_loopback_address(), "amqps_port": AMQPS_PORT, "devices": ("d1",)}
    with second_hub(emulator, **options) as hub:
        device = Device.of(hub.device_connection_string("d1"))
        node.call(
            "device",
            "create",
            device="again",
            connectionString=device.connection_string,
            transport="Amqp",
            retries=True,
        )
        node.call("device", "open", device="again")
        node.call("device", "receive", device="again")
        node.call("device", "answer", device="again", method="reboot", status=200)
        node.call("device", "send", device="again", body="x")
    stopped = time.monotonic()
    with second_hub(emulator, **options) as hub, Service(hub) as service:
        service.wait_for_device(device.id)
        assert time.monotonic() - stopped < 30  # after a close it would take 45 s
        send(service, device, "hello")
        assert node.wait("again", "message")["body"] == "hello"
        body = {"methodName": "reboot", "connectTimeoutInSeconds": 20}
        response = service.request("POST", f"/twins/{device.id}/methods", json=body)
        assert response.json()["status"] == 200
        node.call("device", "close", device="again")
