"""azure-iot-device over AMQP, with certificates instead of keys: it sends no token at all."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests.node.conftest import Node, NodeError
from tests.support import Service, second_hub
from tests.x509 import Credential, issue

CA = issue("Root", ca=True)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def hub(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that registers a CA."""
    if sys.platform == "darwin":
        pytest.skip("another emulator has the only loopback address")
    authority = CA.certificate_file(tmp_path_factory.mktemp("clients"))
    options = {"host": free_loopback_address(), "authorities": (authority,)}
    with second_hub(emulator, amqps_port=5671, **options) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


@pytest.fixture
def device_id() -> str:
    return f"x509-{next(_numbers)}"


def _register(service: Service, device_id: str, authentication: dict[str, Any]) -> None:
    body = {"deviceId": device_id, "authentication": authentication}
    response = service.request("PUT", f"/devices/{device_id}", json=body)
    assert response.ok, response.text


def _send(node: Node, hub: Emulator, device_id: str, credential: Credential) -> None:
    """Send a message, and close the client."""
    key = credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    certificates = (credential.certificate, *credential.chain)
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode()
    text = f"HostName={hub.host_name};DeviceId={device_id};x509=true"
    name = f"certificate-{next(_numbers)}"
    node.call(
        "device",
        "create",
        device=name,
        connectionString=text,
        transport="Amqp",
        x509={"cert": pem, "key": key},
    )
    try:
        node.call("device", "open", device=name)
        node.call("device", "send", device=name, body="x")
    finally:
        node.call("device", "close", device=name)


def test_thumbprints(node: Node, hub: Emulator, service: Service, device_id: str) -> None:
    credential = issue("any name")
    thumbprints = {"primaryThumbprint": credential.sha1, "secondaryThumbprint": credential.sha256}
    _register(service, device_id, {"type": "selfSigned", "x509Thumbprint": thumbprints})
    _send(node, hub, device_id, credential)
    assert service.request("GET", "/_emulator/events", params={"device": device_id}).json()


def test_a_certificate_of_a_registered_authority(
    node: Node, hub: Emulator, service: Service, device_id: str
) -> None:
    _register(service, device_id, {"type": "certificateAuthority"})
    _send(node, hub, device_id, issue(device_id, by=CA))
    with pytest.raises(NodeError) as caught:
        _send(node, hub, device_id, issue("another", by=CA))
    assert caught.value.name == "UnauthorizedError"


def test_a_certificate_that_no_identity_names(
    node: Node, hub: Emulator, service: Service, device_id: str
) -> None:
    thumbprints = {"primaryThumbprint": issue("x").sha1}
    _register(service, device_id, {"type": "selfSigned", "x509Thumbprint": thumbprints})
    with pytest.raises(NodeError) as caught:
        _send(node, hub, device_id, issue(device_id))
    assert caught.value.name == "UnauthorizedError"
