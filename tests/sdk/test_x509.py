"""azure-iot-device with certificates instead of keys."""

import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import X509, IoTHubDeviceClient, IoTHubModuleClient
from azure.iot.device.exceptions import CredentialError
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests.support import Service, second_hub
from tests.x509 import Credential, issue

CA = issue("Root", ca=True)
PASS_PHRASE = "a pass phrase"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def hub(emulator: Emulator, folder: Path) -> Iterator[Emulator]:
    """An emulator that registers a CA, and that the SDK in this process trusts."""
    if sys.platform == "darwin":
        pytest.skip("another emulator has the only loopback address")
    options = {"host": free_loopback_address(), "authorities": (CA.certificate_file(folder),)}
    with second_hub(emulator, mqtt_port=8883, **options) as running:
        yield running


@dataclass
class Devices:
    """Makes identities, and clients for them."""

    hub: Emulator
    folder: Path
    service: Service
    device_id: str
    clients: list[Any]

    def register(self, authentication: dict[str, Any], module_id: str | None = None) -> None:
        path = f"/devices/{self.device_id}"
        body: dict[str, Any] = {"deviceId": self.device_id, "authentication": authentication}
        if module_id is not None:
            path += f"/modules/{module_id}"
            body["moduleId"] = module_id
        response = self.service.request("PUT", path, json=body)
        assert response.ok, response.text

    def client(
        self, credential: Credential, module_id: str | None = None
    ) -> IoTHubDeviceClient | IoTHubModuleClient:
        key = self.folder / f"{credential.sha256}.key"
        encryption = BestAvailableEncryption(PASS_PHRASE.encode())
        key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        certificate = credential.client_file(self.folder)
        x509 = X509(str(certificate), str(key), PASS_PHRASE)
        kind, names = IoTHubDeviceClient, {"device_id": self.device_id}
        if module_id is not None:
            kind, names = IoTHubModuleClient, {**names, "module_id": module_id}
        client = kind.create_from_x509_certificate(x509, hostname=self.hub.host_name, **names)
        self.clients.append(client)
        return client


@pytest.fixture
def devices(hub: Emulator, folder: Path) -> Iterator[Devices]:
    with Service(hub) as service:
        devices = Devices(hub, folder, service, f"x509-{uuid.uuid4().hex[:12]}", [])
        yield devices
    for client in devices.clients:
        client.shutdown()


def named(credential: Credential, hash_name: str = "sha1") -> dict[str, Any]:
    thumbprint = getattr(credential, hash_name)
    return {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}


CA_SIGNED = {"type": "certificateAuthority"}


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
def test_a_device_with_a_thumbprint_works(devices: Devices, hash_name: str) -> None:
    credential = issue("any name", ca=True)
    devices.register(named(credential, hash_name))
    client = devices.client(credential)
    client.connect()
    client.patch_twin_reported_properties({"by": hash_name})
    assert client.get_twin()["reported"]["by"] == hash_name


def test_a_device_with_a_ca_signed_certificate_works(devices: Devices) -> None:
    intermediate = issue("Intermediate", by=CA, ca=True)
    devices.register(CA_SIGNED)
    client = devices.client(issue(devices.device_id, by=intermediate, chain=(intermediate,)))
    client.connect()
    assert client.get_twin()["desired"] == {"$version": 1}


@pytest.mark.parametrize("authentication", ["named", "signed"])
def test_a_module_works(devices: Devices, authentication: str) -> None:
    devices.register({"type": "sas"})
    if authentication == "named":
        credential = issue("any name")
        devices.register(named(credential), "m")
    else:
        credential = issue(f"{devices.device_id}/m", by=CA)
        devices.register(CA_SIGNED, "m")
    client = devices.client(credential, "m")
    client.connect()
    assert client.get_twin()["desired"] == {"$version": 1}


def test_a_certificate_with_another_name_is_refused(devices: Devices) -> None:
    devices.register(CA_SIGNED)
    with pytest.raises(CredentialError):
        devices.client(issue("another", by=CA)).connect()


def test_a_ca_does_not_replace_a_thumbprint(devices: Devices) -> None:
    devices.register(named(issue("any name")))
    with pytest.raises(CredentialError):
        devices.client(issue(devices.device_id, by=CA)).connect()


def test_an_unknown_certificate_is_refused(devices: Devices) -> None:
    devices.register(named(issue("any name")))
    with pytest.raises(CredentialError):
        devices.client(issue("any name")).connect()
