"""azure-iot-device uploads whole files, by @azure/storage-blob, into the folder of the hub."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from emulator import Emulator
from tests.node.conftest import Node
from tests.support import Device, Service


@pytest.fixture
def hub(web_socket_hub: Emulator) -> Emulator:
    """An emulator at port 443, which the SDK dials for HTTPS."""
    return web_socket_hub


@pytest.fixture
def device(node: Node, hub: Emulator) -> str:
    """The name of a device, in the hub and in the program."""
    device = Device.of(hub.register_device(f"uploads-{uuid.uuid4().hex[:12]}"))
    string = device.connection_string
    node.call("device", "create", device=device.id, connectionString=string, transport="AmqpWs")
    return device.id


# The SDK has blocks of 4 MB, and uploads no empty file.
@pytest.mark.parametrize("size", [1, 9_000_000])
def test_a_device_uploads_a_file(
    node: Node, hub: Emulator, device: str, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "source"
    file.write_bytes(os.urandom(size))
    node.call("device", "uploadFile", device=device, blob="a/photo 1.jpg", file=str(file))
    assert hub.uploads_folder is not None
    assert (hub.uploads_folder / device / "a" / "photo 1.jpg").read_bytes() == file.read_bytes()
    with Service(hub) as service:
        path = "/messages/serviceBound/filenotifications"
        found = service.request("GET", path)
        lock = found.headers["iothub-messagelocktoken"]
        service.request("DELETE", f"{path}/{lock}")
    assert found.json()["blobName"] == f"{device}/a/photo 1.jpg"
    assert found.json()["blobSizeInBytes"] == size
