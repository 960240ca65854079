"""From a CA of the command line to azure-iot-device: registered, verified, expired, removed."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.iot.device import X509, IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.device.exceptions import CredentialError

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests.cli.test_commands import run_to_end
from tests.support import second_hub


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """An emulator without a CA, which the SDK in this process trusts."""
    if sys.platform == "darwin":
        pytest.skip("another emulator has the only loopback address")
    with second_hub(emulator, mqtt_port=8883, host=free_loopback_address()) as running:
        yield running


class Workshop:
    """The commands, and devices with the certificates that they make."""

    def __init__(self, hub: Emulator, folder: Path) -> None:
        self._hub = hub
        self._folder = folder

    def ca(self, *arguments: str) -> None:
        """Make a certificate."""
        status, _, errors = run_to_end("ca", *arguments, "--dir", self._folder)
        assert (status, errors) == (0, [])

    def run(self, *arguments: str) -> list[str]:
        """Run a command against the hub; return its lines."""
        variables = self._hub.environment()
        status, lines, errors = run_to_end(*arguments, **variables)
        assert (status, errors) == (0, [])
        return lines

    def file(self, name: str) -> str:
        return str(self._folder / f"{name}.pem")

    def credential(self, device_id: str) -> X509:
        return X509(self.file(f"{device_id}-cert"), self.file(f"{device_id}-key"))

    def reads_its_twin(self, device_id: str) -> bool:
        """Return whether a device can connect with its certificate, and read its twin."""
        client = IoTHubDeviceClient.create_from_x509_certificate(
            self.credential(device_id), hostname=self._hub.host_name, device_id=device_id
        )
        try:
            client.connect()
        except CredentialError:
            return False
        else:
            return bool(client.get_twin())
        finally:
            client.shutdown()


@pytest.fixture
def workshop(hub: Emulator, tmp_path: Path) -> Workshop:
    return Workshop(hub, tmp_path)


def test_a_device_with_a_certificate_of_the_workshop(workshop: Workshop) -> None:
    device_id = f"x509-{uuid.uuid4().hex[:12]}"
    workshop.ca("create", "factory")
    workshop.ca("create", "line-1", "--signed-by", "factory", "--key", "rsa")
    issue = ("issue", device_id, "--signed-by", "line-1", "--key", "rsa")
    workshop.ca(*issue)
    workshop.run("device-identity", "create", "-d", device_id, "--am", "x509_ca")
    assert not workshop.reads_its_twin(device_id)

    name = ("-n", "factory")
    workshop.run("certificate", "create", *name, "-p", workshop.file("factory-cert"))
    query = ("--query", "properties.verificationCode", "-o", "tsv")
    (code,) = workshop.run("certificate", "generate-verification-code", *name, *query)
    assert not workshop.reads_its_twin(device_id)
    workshop.ca("verify", code, "--signed-by", "factory")
    workshop.run("certificate", "verify", *name, "-p", workshop.file("factory-proof"))
    assert workshop.reads_its_twin(device_id)

    workshop.ca(*issue, "--days", "-1", "--force")
    assert not workshop.reads_its_twin(device_id)
    workshop.ca(*issue, "--force")
    assert workshop.reads_its_twin(device_id)
    workshop.run("certificate", "delete", *name)
    assert not workshop.reads_its_twin(device_id)


def test_a_device_is_provisioned_by_a_registered_ca(hub: Emulator, workshop: Workshop) -> None:
    group, device_id = f"g-{uuid.uuid4().hex[:12]}", f"x509-{uuid.uuid4().hex[:12]}"
    workshop.ca("create", group)
    workshop.ca("issue", device_id, "--signed-by", group)
    create = ("certificate", "create", "-n", group, "-p", workshop.file(f"{group}-cert"))
    workshop.run(*create, "--verified")
    workshop.run("enrollment-group", "create", "--gid", group, "--ca-name", group)
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=hub.host_name,
        registration_id=device_id,
        id_scope=hub.dps_id_scope,
        x509=workshop.credential(device_id),
    )
    assert client.register().status == "assigned"
    assert workshop.reads_its_twin(device_id)
