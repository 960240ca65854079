"""azure-iot-device registers with the Device Provisioning Service, and connects to its hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import X509, IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.device.aio import ProvisioningDeviceClient as AioProvisioningDeviceClient

from emulator import Emulator
from tests.dps.support import KEY, Owner, derived, new_id, pem
from tests.support import Service, own, second_hub
from tests.x509 import Credential, issue

INTERMEDIATE = issue("Factory", ca=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("provisioning")


@pytest.fixture(scope="module")
def web_socket_hub(emulator: Emulator) -> Iterator[Emulator]:
    """A second emulator at the address of the first, at the port of WebSockets."""
    try:
        socket.create_server((emulator.host_name, 443)).close()
    except OSError as error:  # a privilege is missing, or another program listens there
        pytest.skip(f"the SDK dials port 443, which can't be listened on: {error.strerror}")
    with second_hub(emulator, https_port=443) as running:
        yield running


@pytest.fixture(params=["mqtt", "websockets"])
def transport(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"websockets": True} if request.param == "websockets" else {}


@pytest.fixture
def dps(request: pytest.FixtureRequest, emulator: Emulator, transport: dict[str, Any]) -> Emulator:
    """The emulator that the SDK dials."""
    if transport:
        found = request.getfixturevalue("web_socket_hub")
        assert isinstance(found, Emulator)
        return found
    return emulator


@pytest.fixture
def owner(dps: Emulator) -> Iterator[Owner]:
    with Owner(dps) as client:
        yield client


def register(client: ProvisioningDeviceClient) -> Any:
    """Register, and return the result."""
    return client.register()


def connect(client: IoTHubDeviceClient) -> dict[str, Any]:
    """Connect to the hub, and return the twin."""
    try:
        client.connect()
        twin: dict[str, Any] = client.get_twin()
        return twin
    finally:
        client.shutdown()


def test_a_device_with_a_key_registers_and_connects(
    dps: Emulator, owner: Owner, transport: dict[str, Any]
) -> None:
    name, device_id = new_id(), new_id("device")
    twin = {"properties": {"desired": {"rate": 5}}}
    owner.enroll(name, deviceId=device_id, initialTwin=twin)
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        dps.host_name, name, dps.dps_id_scope, KEY, **transport
    )
    client.provisioning_payload = {"model": 1}
    result = register(client)
    state = result.registration_state
    assert (result.status, state.assigned_hub) == ("assigned", dps.host_name)
    assert (state.device_id, state.sub_status) == (device_id, "initialAssignment")
    hub_client = IoTHubDeviceClient.create_from_symmetric_key(
        KEY, state.assigned_hub, state.device_id, **transport
    )
    assert own(connect(hub_client)["desired"]) == {"rate": 5}


def test_a_device_of_a_group_registers(
    dps: Emulator, owner: Owner, transport: dict[str, Any]
) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    key = derived(KEY, name)
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        dps.host_name, name, dps.dps_id_scope, key, **transport
    )
    state = register(client).registration_state
    assert state.device_id == name
    hub_client = IoTHubDeviceClient.create_from_symmetric_key(
        key, state.assigned_hub, state.device_id, **transport
    )
    assert connect(hub_client)["reported"] == {"$version": 1}
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


@pytest.mark.parametrize("in_group", [False, True], ids=["alone", "group"])
def test_a_device_with_a_certificate_registers_and_connects(
    dps: Emulator, owner: Owner, transport: dict[str, Any], folder: Path, in_group: bool
) -> None:
    name, group = new_id(), new_id("group")
    credential = issue(name, by=INTERMEDIATE, chain=(INTERMEDIATE,))
    if in_group:
        pair = {"primary": {"certificate": pem(INTERMEDIATE)}}
        owner.enroll_group(group, {"type": "x509", "x509": {"signingCertificates": pair}})
    else:
        pair = {"primary": {"certificate": pem(credential)}}
        owner.enroll(name, {"type": "x509", "x509": {"clientCertificates": pair}})
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        dps.host_name, name, dps.dps_id_scope, _x509(credential, folder), **transport
    )
    state = register(client).registration_state
    assert state.device_id == name
    hub_client = IoTHubDeviceClient.create_from_x509_certificate(
        _x509(credential, folder), state.assigned_hub, state.device_id, **transport
    )
    assert connect(hub_client)["desired"] == {"$version": 1}
    with Service(dps) as service:
        identity = service.request("GET", f"/devices/{name}").json()
    assert identity["authentication"]["type"] == "selfSigned"
    if in_group:
        owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def _x509(credential: Credential, folder: Path) -> X509:
    file = str(credential.client_file(folder))
    return X509(cert_file=file, key_file=file)


def test_a_wrong_key_and_a_disabled_enrollment_are_errors(emulator: Emulator) -> None:
    name, other = new_id(), new_id()
    with Owner(emulator) as owner:
        owner.enroll(name, provisioningStatus="disabled")

    def attempt(registration_id: str) -> BaseException:
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            emulator.host_name, registration_id, emulator.dps_id_scope, KEY
        )
        with pytest.raises(Exception) as error:
            client.register()
        return error.value.__cause__ or error.value

    assert "error status code 401" in str(attempt(other))
    assert "invalid registration status disabled" in str(attempt(name))


async def test_a_failed_assignment_is_an_error(emulator: Emulator) -> None:
    name = new_id()
    webhook = {"webhookUrl": "http://127.0.0.1:9/", "apiVersion": ""}
    with Owner(emulator) as owner:
        owner.enroll(name, allocationPolicy="custom", customAllocationDefinition=webhook)
    client = AioProvisioningDeviceClient.create_from_symmetric_key(
        emulator.host_name, name, emulator.dps_id_scope, KEY
    )
    with pytest.raises(Exception) as error:
        await client.register()
    assert "failed registration status" in str(error.value.__cause__ or error.value)
