"""azure-iot-device starts and ends uploads over HTTPS, which it can only dial at port 443.

The storage is one without bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.iot.device import X509, IoTHubDeviceClient
from azure.iot.device.aio import IoTHubDeviceClient as AioDeviceClient
from azure.iot.device.exceptions import ClientError

from emulator import Emulator
from tests.hub.uploads.shelf import Shelf
from tests.support import Device, Service, second_hub
from tests.x509 import issue

_HTTPS_PORT = 443
_NOTIFICATIONS = "/messages/serviceBound/filenotifications"


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A second emulator at the address of the first, which this process trusts already."""
    try:
        socket.create_server((emulator.host_name, _HTTPS_PORT)).close()
    except OSError as error:  # a privilege is missing, or another program listens there
        pytest.skip(f"the SDK dials port 443, which can't be listened on: {error.strerror}")
    with second_hub(emulator, https_port=_HTTPS_PORT) as running:
        yield running


@pytest.fixture
def shelf(hub: Emulator, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(hub.hub.uploads, "_storage", shelf)
    return shelf


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


@contextmanager
def refused(status: int) -> Iterator[None]:
    """Expect that the hub refuses a request; the SDK says only in the cause of its error why."""
    with pytest.raises(ClientError) as raised:
        yield
    assert str(raised.value.__cause__).startswith(f"HTTP operation returned: {status} ")


def _notified(service: Service) -> str:
    answer = service.request("GET", _NOTIFICATIONS)
    assert answer.status_code == 200
    lock = answer.headers["iothub-messagelocktoken"]
    assert service.request("DELETE", f"{_NOTIFICATIONS}/{lock}").status_code == 204
    name: str = answer.json()["blobName"]
    return name


def _upload(client: IoTHubDeviceClient, shelf: Shelf) -> str:
    """Upload a file; return the name of its blob."""
    info = client.get_storage_info_for_blob("a b.txt")
    assert list(info) == ["correlationId", "hostName", "containerName", "blobName", "sasToken"]
    name: str = info["blobName"]
    shelf.put(name)
    client.notify_blob_upload_status(info["correlationId"], True, 200, "OK")
    return name


def test_a_device_uploads_a_file(
    make_client: Callable[..., IoTHubDeviceClient], shelf: Shelf, service: Service, device: Device
) -> None:
    """Without a connection: an upload needs none."""
    assert _upload(make_client(), shelf) == _notified(service) == f"{device.id}/a b.txt"


def test_a_device_with_a_certificate_uploads_a_file(
    shelf: Shelf, service: Service, hub: Emulator, tmp_path: Path
) -> None:
    credential = issue("any name")
    thumbprints = {"primaryThumbprint": credential.sha256, "secondaryThumbprint": credential.sha256}
    hub.register_device("x", authentication={"type": "selfSigned", "x509Thumbprint": thumbprints})
    file = str(credential.client_file(tmp_path))
    x509 = X509(file, file)
    client = IoTHubDeviceClient.create_from_x509_certificate(x509, hub.host_name, "x")
    try:
        assert _upload(client, shelf) == _notified(service) == "x/a b.txt"
        hub.remove_device("x")
        with refused(401):
            client.get_storage_info_for_blob("a")
    finally:
        client.shutdown()


async def test_the_client_for_asyncio_uploads_files_at_once(
    make_aio_client: Callable[..., AioDeviceClient], shelf: Shelf, service: Service, device: Device
) -> None:
    client = make_aio_client()
    names = [str(number) for number in range(10)]
    infos = await asyncio.gather(*map(client.get_storage_info_for_blob, names))
    with refused(403):
        await client.get_storage_info_for_blob("one more")
    for info in infos:
        shelf.put(info["blobName"])
    await asyncio.gather(
        *(client.notify_blob_upload_status(each["correlationId"], True, 201, "") for each in infos)
    )
    found = {await asyncio.to_thread(_notified, service) for _ in names}
    assert found == {f"{device.id}/{name}" for name in names}


def test_the_sdk_sees_the_errors_of_the_hub(
    make_client: Callable[..., IoTHubDeviceClient], shelf: Shelf
) -> None:
    client = make_client()
    with refused(400):
        client.get_storage_info_for_blob("")
    with refused(400):
        client.notify_blob_upload_status("unknown", True, 200, "OK")
