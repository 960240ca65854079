"""azure-iot-device and azure-storage-blob upload files: into the folder, and into Azurite."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.iot.device import IoTHubDeviceClient
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient, ContentSettings
from azure.storage.blob.aio import BlobClient as AioBlobClient

from emulator import Emulator
from tests.npm import install
from tests.processes import Console
from tests.support import API_VERSION, Device, Service, sas_token, second_hub, wait_until

_NOTIFICATIONS = "/messages/serviceBound/filenotifications"
# The account of every Azurite (Azurite's README).
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Storage(NamedTuple):
    """A hub, and a way to read the files that its devices upload."""

    hub: Emulator
    read: Callable[[str], bytes]


@pytest.fixture(scope="module")
def azurite(emulator: Emulator) -> Iterator[str]:
    """The URL of a storage emulator with TLS, which has the certificate of the hub."""
    program = install(Path(__file__).parent / "package.json") / "azurite/dist/src/blob/main.js"
    certificate = str(emulator.ca_file.with_name("server-rsa.pem"))
    options = ("--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry")
    tls = ("--cert", certificate, "--key", certificate)
    with Console(program, *options, *tls, "--skipApiVersionCheck", program="node") as console:
        line = console.wait_for("Azurite Blob service successfully listens on .*")
        yield f"{line.rpartition(' ')[2]}/{ACCOUNT}"


@pytest.fixture(scope="module")
def folder_storage(emulator: Emulator) -> Storage:
    def read(name: str) -> bytes:
        assert emulator.uploads_folder is not None
        return (emulator.uploads_folder / name).read_bytes()

    return Storage(emulator, read)


@pytest.fixture(scope="module")
def azurite_storage(emulator: Emulator, azurite: str) -> Iterator[Storage]:
    connection = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azurite};"
    with (
        second_hub(emulator, upload_storage=connection) as hub,
        ContainerClient.from_connection_string(connection, "iothub-uploads") as container,
    ):
        assert hub.uploads_port is hub.uploads_folder is None
        wait_until(container.exists)
        yield Storage(hub, lambda name: container.download_blob(name).readall())


@pytest.fixture(params=["folder", "azurite"])
def storage(request: pytest.FixtureRequest) -> Storage:
    found: Storage = request.getfixturevalue(f"{request.param}_storage")
    return found


class Uploader:
    """A device that uses HTTPS for what azure-iot-device can only do at port 443."""

    def __init__(self, hub: Emulator, device_id: str) -> None:
        self.device = Device.of(hub.register_device(device_id))
        resource = f"{hub.https_host}/devices/{self.device.id}"
        self._url = f"https://{resource}/files"
        self._token = sas_token(resource, self.device.key)
        self._ca = str(hub.ca_file)

    def post(self, path: str, body: object) -> requests.Response:
        """Send a request of the device."""
        return requests.post(
            self._url + path,
            json=body,
            params={"api-version": API_VERSION},
            headers={"Authorization": self._token},
            verify=self._ca,
            timeout=60,
        )

    def start(self, name: str) -> dict[str, str]:
        """Start an upload; return the answer, as `get_storage_info_for_blob` does."""
        answer = self.post("", {"blobName": name})
        assert answer.status_code == 200, answer.text
        document: dict[str, str] = answer.json()
        return document

    def end(self, info: dict[str, str], *, success: bool = True) -> requests.Response:
        """Report the end."""
        body = {"correlationId": info["correlationId"], "isSuccess": success, "statusCode": 200}
        return self.post("/notifications", body)


def url_of(info: dict[str, str]) -> str:
    """Return the URL of a blob, as the samples of the SDK build it."""
    return "https://{hostName}/{containerName}/{blobName}{sasToken}".format(**info)


@pytest.fixture
def uploader(storage: Storage) -> Uploader:
    return Uploader(storage.hub, f"device-{uuid.uuid4().hex[:12]}")


def client(info: dict[str, str], **options: Any) -> BlobClient:
    return BlobClient.from_blob_url(url_of(info), **options)


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_file_and_its_notification(storage: Storage, uploader: Uploader, size: int) -> None:
    content = os.urandom(size)
    info = uploader.start("folder/photo 1.jpg")
    assert uploader.end(info).status_code == 400  # it is not there
    with client(info) as blob:
        blob.upload_blob(content)
        with pytest.raises(ResourceExistsError) as refused:
            blob.upload_blob(content)
        assert refused.value.error_code == "BlobAlreadyExists"
        assert blob.download_blob().readall() == content
        properties = blob.get_blob_properties()
        assert (properties.size, properties.blob_type) == (size, "BlockBlob")
    assert uploader.end(info).status_code == 204
    name = f"{uploader.device.id}/folder/photo 1.jpg"
    assert storage.read(name) == content
    with Service(storage.hub) as service:
        found = service.request("GET", _NOTIFICATIONS)
        lock = found.headers["iothub-messagelocktoken"]
        assert service.request("DELETE", f"{_NOTIFICATIONS}/{lock}").status_code == 204
    document = found.json()
    assert (document["blobName"], document["blobSizeInBytes"]) == (name, size)
    written = properties.last_modified.strftime("%Y-%m-%dT%H:%M:%S")
    assert document["lastUpdatedTime"].startswith(written)
    assert document["blobUri"] == url_of(info).partition("?")[0].replace(" ", "%20")


def test_a_large_file_goes_in_blocks(storage: Storage, uploader: Uploader) -> None:
    content = os.urandom(5_000_000)
    info = uploader.start("large.bin")
    with client(info, max_single_put_size=100_000, max_block_size=300_000) as blob:
        blob.upload_blob(content, max_concurrency=4, validate_content=True)
        committed, uncommitted = blob.get_block_list("all")
        assert (len(committed), uncommitted) == (17, [])
        assert blob.download_blob(offset=1_000, length=50).readall() == content[1_000:1_050]
        assert blob.download_blob(max_concurrency=3).readall() == content
        assert blob.download_blob(validate_content=True).readall() == content
    assert storage.read(info["blobName"]) == content


def test_blocks_one_by_one(storage: Storage, uploader: Uploader) -> None:
    info = uploader.start("blocks.txt")
    with client(info) as blob:
        for name in ("b", "a"):
            blob.stage_block(name, name.encode() * 3)
        _, staged = blob.get_block_list("uncommitted")
        assert {(each.id, each.size) for each in staged} == {("a", 3), ("b", 3)}
        settings = ContentSettings(content_type="text/plain")
        blob.commit_block_list(
            [BlobBlock("a"), BlobBlock("b")], content_settings=settings, metadata={"lines": "1"}
        )
        properties = blob.get_blob_properties()
        assert properties.content_settings.content_type == "text/plain"
        assert properties.metadata == {"lines": "1"}
        with pytest.raises(HttpResponseError) as refused:
            blob.commit_block_list([BlobBlock("c")])
        assert (refused.value.status_code, refused.value.error_code) == (400, "InvalidBlockList")
    assert storage.read(info["blobName"]) == b"aaabbb"


def test_conditions(uploader: Uploader) -> None:
    with client(uploader.start("x")) as blob:
        with pytest.raises(ResourceNotFoundError) as missing:
            blob.get_blob_properties()
        assert missing.value.error_code == "BlobNotFound"
        assert blob.exists() is False
        etag = blob.upload_blob(b"1")["etag"]
        blob.upload_blob(b"2", overwrite=True)
        with pytest.raises(ResourceModifiedError) as changed:
            blob.download_blob(etag=etag, match_condition=MatchConditions.IfNotModified)
        assert changed.value.error_code == "ConditionNotMet"


def test_other_blobs_are_refused(storage: Storage, uploader: Uploader) -> None:
    info = uploader.start("mine")
    for other in (
        {**info, "blobName": "another/mine"},
        {**info, "containerName": "others"},
        {**info, "sasToken": info["sasToken"].replace("sp=rw", "sp=rwd")},
    ):
        with client(other) as blob, pytest.raises(HttpResponseError) as refused:
            blob.upload_blob(b"x")
        assert refused.value.status_code == 403
        if storage.hub.uploads_port:  # Azurite has another name for it
            assert isinstance(refused.value, ClientAuthenticationError)
            assert refused.value.error_code == "AuthenticationFailed"


def test_what_a_token_does_not_allow(uploader: Uploader) -> None:
    with client(uploader.start("mine")) as blob:
        blob.upload_blob(b"x")
        with pytest.raises(HttpResponseError) as refused:
            blob.delete_blob()
    assert refused.value.status_code == 403
    assert refused.value.error_code == "AuthorizationPermissionMismatch"


async def test_the_client_for_asyncio(storage: Storage, uploader: Uploader) -> None:
    info = uploader.start("aio.bin")
    content = os.urandom(600_000)
    # aiohttp reads SSL_CERT_FILE when it is imported.
    options = {"max_block_size": 100_000, "connection_verify": str(storage.hub.ca_file)}
    async with AioBlobClient.from_blob_url(
        url_of(info), max_single_put_size=100_000, **options
    ) as blob:
        await blob.upload_blob(content, max_concurrency=3)
        stream = await blob.download_blob()
        assert await stream.readall() == content
    assert storage.read(info["blobName"]) == content


def test_azure_iot_device_and_azure_storage_blob(emulator: Emulator) -> None:
    """As in docs/uploads.md."""
    try:
        socket.create_server((emulator.host_name, 443)).close()
    except OSError as error:  # a privilege is missing, or another program listens there
        pytest.skip(f"the SDK dials port 443, which can't be listened on: {error.strerror}")
    with second_hub(emulator, https_port=443, devices=("d",)) as hub:
        string = hub.device_connection_string("d")
        device = IoTHubDeviceClient.create_from_connection_string(string)
        try:
            place = device.get_storage_info_for_blob("photo.jpg")
            with client(place) as blob:
                blob.upload_blob(b"a photo", overwrite=True)
            device.notify_blob_upload_status(place["correlationId"], True, 200, "OK")
        finally:
            device.shutdown()
        assert hub.uploads_folder is not None
        assert (hub.uploads_folder / "d" / "photo.jpg").read_bytes() == b"a photo"
        found = hub.wait_for_upload("d", name="photo.jpg")
        assert (found.success, found.size) == (True, 7)
        assert found.uri == url_of(place).partition("?")[0]
