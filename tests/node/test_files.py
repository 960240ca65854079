"""azure-iot-device starts and ends uploads over HTTPS; azure-iothub receives the notifications.

The storage is one without bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from emulator import Emulator
from tests.hub.uploads.shelf import Shelf
from tests.node.conftest import Node, NodeError
from tests.support import Device

_numbers = itertools.count(1)


@pytest.fixture
def hub(web_socket_hub: Emulator) -> Emulator:
    """An emulator at port 443, which the SDK dials for HTTPS."""
    return web_socket_hub


@pytest.fixture
def shelf(hub: Emulator, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(hub.hub.uploads, "_storage", shelf)
    return shelf


class NodeDevice:
    """A client of azure-iot-device, which is not connected: uploads need no connection."""

    def __init__(self, node: Node, device: Device) -> None:
        self._node = node
        self._name = f"uploads-{next(_numbers)}"
        self.call("create", connectionString=device.connection_string, transport="AmqpWs")

    def call(self, name: str, **args: Any) -> Any:
        """Call a function of device.js."""
        return self._node.call("device", name, device=self._name, **args)


@pytest.fixture
def device(node: Node, hub: Emulator) -> NodeDevice:
    # Node encodes the id in paths.
    return NodeDevice(node, Device.of(hub.register_device(f"files#{next(_numbers)}")))


@pytest.fixture
def receiver(node: Node, hub: Emulator, shelf: Shelf) -> Iterator[str]:
    """A service that abandons its first notification."""
    name = f"files-{next(_numbers)}"
    text = hub.service_connection_string
    node.call("service", "create", service=name, connectionString=text, transport="AmqpWs")
    node.call("service", "open", service=name)
    node.call("service", "receiveFiles", service=name, outcomes=["abandon"])
    yield name
    node.call("service", "close", service=name)


def test_a_service_is_notified_of_an_upload(
    node: Node, device: NodeDevice, shelf: Shelf, receiver: str
) -> None:
    started = device.call("startUpload", blob="a b?.txt")
    assert started["containerName"] == "uploads"
    shelf.put(started["blobName"], 1234)
    device.call(
        "endUpload",
        correlationId=started["correlationId"],
        isSuccess=True,
        status=201,
        text="Created",
    )
    for outcome in ("abandon", "complete"):
        found = node.wait(receiver, "file")
        assert (found["blobName"], found["blobSizeInBytes"]) == (started["blobName"], 1234)
        assert node.wait(receiver, outcome) is None


def test_a_failure_makes_room(device: NodeDevice, shelf: Shelf) -> None:
    for _ in range(11):
        started = device.call("startUpload", blob="a.txt")
        correlation_id = started["correlationId"]
        device.call("endUpload", correlationId=correlation_id, isSuccess=False, status=0, text="")


def test_the_sdk_sees_the_status_of_errors(device: NodeDevice, shelf: Shelf) -> None:
    for _ in range(10):
        device.call("startUpload", blob="a.txt")
    with pytest.raises(NodeError, match="Forbidden"):
        device.call("startUpload", blob="a.txt")
    with pytest.raises(NodeError, match="Bad Request"):
        device.call("endUpload", correlationId="x", isSuccess=True, status=200, text="")
