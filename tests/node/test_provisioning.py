"""The provisioning SDKs of npm: devices over every protocol, and the service client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from emulator import Emulator
from tests.dps.support import KEY, SYMMETRIC, Owner, derived, new_id, pem
from tests.node.conftest import AMQPS_PORT, Node, NodeError
from tests.x509 import Credential, issue

FACTORY = issue("Factory of Node", ca=True)


@pytest.fixture(params=["Mqtt", "MqttWs", "Amqp", "AmqpWs", "Http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dps(request: pytest.FixtureRequest, emulator: Emulator, transport: str) -> Emulator:
    """The emulator that the SDK dials."""
    if transport == "Amqp" and emulator.amqps_port != AMQPS_PORT:
        pytest.skip("another program has port 5671")
    if transport in ("Mqtt", "Amqp"):
        return emulator
    found = request.getfixturevalue("web_socket_hub")
    assert isinstance(found, Emulator)
    return found


@pytest.fixture
def owner(dps: Emulator) -> Iterator[Owner]:
    with Owner(dps) as client:
        yield client


def register(node: Node, dps: Emulator, name: str, transport: str, **proof: Any) -> dict[str, Any]:
    found: dict[str, Any] = node.call(
        "provisioning",
        "register",
        host=dps.host_name,
        idScope=dps.dps_id_scope,
        id=name,
        transport=transport,
        **proof,
    )
    return found


def x509(credential: Credential) -> dict[str, str]:
    key = credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    certificates = (credential.certificate, *credential.chain)
    return {
        "cert": b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode(),
        "key": key,
    }


# --- devices


def test_a_device_with_a_key_registers(
    node: Node, dps: Emulator, owner: Owner, transport: str
) -> None:
    name = new_id()
    owner.enroll(name, deviceId=f"{name}-device")
    result = register(node, dps, name, transport, key=KEY, payload={"model": 7})
    assert (result["status"], result["hub"]) == ("assigned", dps.host_name)
    assert result["device"] == f"{name}-device"


def test_a_device_of_a_group_registers(
    node: Node, dps: Emulator, owner: Owner, transport: str
) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    assert register(node, dps, name, transport, key=derived(KEY, name))["device"] == name
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_a_device_with_a_certificate_registers(
    node: Node, dps: Emulator, owner: Owner, transport: str
) -> None:
    group, name = new_id("group"), new_id()
    pair = {"primary": {"certificate": pem(FACTORY)}}
    owner.enroll_group(group, {"type": "x509", "x509": {"signingCertificates": pair}})
    credential = issue(name, by=FACTORY)
    result = register(node, dps, name, transport, x509=x509(credential))
    assert (result["status"], result["device"]) == ("assigned", name)
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_a_wrong_key_is_an_error(node: Node, dps: Emulator, owner: Owner, transport: str) -> None:
    name = new_id()
    owner.enroll(name, {"type": "symmetricKey"})
    with pytest.raises(NodeError) as error:
        register(node, dps, name, transport, key=KEY)
    # Over AMQP, the SDK passes the error on as it is.
    over_amqp = transport.startswith("Amqp")
    assert error.value.name == ("amqp:unauthorized-access" if over_amqp else "UnauthorizedError")


# --- the service client, which dials port 443


@pytest.fixture
def service(node: Node, web_socket_hub: Emulator) -> Any:
    """Calls a method of the service client."""

    def call(method: str, *args: Any, program: str = "service") -> Any:
        return node.call(
            "provisioning",
            program,
            connectionString=web_socket_hub.dps_connection_string,
            method=method,
            args=args,
        )

    return call


def test_enrollments(service: Any) -> None:
    name = new_id()
    created = service(
        "createOrUpdateIndividualEnrollment",
        {"registrationId": name, "attestation": SYMMETRIC, "provisioningStatus": "enabled"},
    )
    assert created["attestation"] == SYMMETRIC
    read = service("getIndividualEnrollment", name)
    read["deviceId"] = "changed"
    assert service("createOrUpdateIndividualEnrollment", read)["deviceId"] == "changed"
    with pytest.raises(NodeError) as error:  # with the etag of before
        service("createOrUpdateIndividualEnrollment", read)
    assert error.value.name == "InvalidEtagError"
    assert service("getIndividualEnrollmentAttestationMechanism", name) == SYMMETRIC
    assert service("deleteIndividualEnrollment", name) is None
    with pytest.raises(NodeError):
        service("getIndividualEnrollment", name)


def test_groups(service: Any) -> None:
    name = new_id("group")
    group = service(
        "createOrUpdateEnrollmentGroup",
        {"enrollmentGroupId": name, "attestation": SYMMETRIC, "provisioningStatus": "enabled"},
    )
    assert service("getEnrollmentGroupAttestationMechanism", name) == SYMMETRIC
    query = {"query": "SELECT * FROM enrollmentGroups"}
    found = service("createEnrollmentGroupQuery", query, 1, program="query")
    assert name in [each["enrollmentGroupId"] for each in found]
    assert service("deleteEnrollmentGroup", {**group}) is None


def test_bulk_and_queries(service: Any) -> None:
    names = [new_id() for _ in range(3)]
    items = [{"registrationId": name, "attestation": SYMMETRIC} for name in names]
    operation = {"mode": "create", "enrollments": items}
    done = service("runBulkEnrollmentOperation", operation, program="bulk")
    assert done["isSuccessful"] is True
    query = {"query": "SELECT * FROM enrollments"}
    found = service("createIndividualEnrollmentQuery", query, 2, program="query")
    assert {*names} <= {each["registrationId"] for each in found}


def test_registrations(service: Any, web_socket_hub: Emulator, node: Node) -> None:
    group, name = new_id("group"), new_id()
    service("createOrUpdateEnrollmentGroup", {"enrollmentGroupId": group, "attestation": SYMMETRIC})
    register(node, web_socket_hub, name, "Http", key=derived(KEY, name))
    state = service("getDeviceRegistrationState", name)
    assert (state["status"], state["assignedHub"]) == ("assigned", web_socket_hub.host_name)
    method = "createEnrollmentGroupDeviceRegistrationStateQuery"
    found = service(method, {"query": "SELECT *"}, group, program="query")
    assert [each["registrationId"] for each in found] == [name]
    assert service("deleteDeviceRegistrationState", state) is None
    assert service("deleteEnrollmentGroup", group) is None
