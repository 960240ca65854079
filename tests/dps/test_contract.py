"""The contract of the service, row by row: what its devices and its owner's programs count on.

Each test is a row of the reference: names and authentication, MQTT, HTTPS and AMQP, states and
failures, what lands in the hub, and the service API. Rows about clients, the global endpoint, TLS
versions and limits of a size that a test can't reach have no test.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509 as certificates
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from emulator import Emulator
from tests.dps import amqp_device, mqtt_device
from tests.dps.amqp_device import AmqpDevice, RefusedError
from tests.dps.mqtt_device import ask, connect
from tests.dps.software_tpm import a_tpm
from tests.dps.support import (
    ID_SCOPE,
    KEY,
    KEYS,
    OTHER_KEY,
    SYMMETRIC,
    VERSION,
    Owner,
    Registrant,
    derived,
    new_id,
    pem,
)
from tests.dps.webhook import Webhook
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.mqtt.web_socket import WebSocketWire
from tests.support import Service, own, sas_token, second_hub, trust
from tests.x509 import Credential, issue

Make = Callable[..., Registrant]

ROOT = issue("Contract root", ca=True)
INTERMEDIATE = issue("Contract intermediate", by=ROOT, ca=True)


@pytest.fixture
def name(owner: Owner) -> str:
    """The registration id of a device with a key."""
    name = new_id()
    owner.enroll(name)
    return name


@pytest.fixture
def group(owner: Owner) -> Iterator[str]:
    """The id of a group with keys, which is deleted afterwards."""
    name = new_id("group")
    owner.enroll_group(name)
    yield name
    owner.call("DELETE", f"/enrollmentGroups/{name}", status=204)


@pytest.fixture
def signing_group(owner: Owner) -> Iterator[Callable[[Credential], None]]:
    """Creates a group with a signing certificate, and deletes it afterwards."""
    name = new_id("group")

    def create(signer: Credential) -> None:
        pair = {"primary": {"certificate": pem(signer)}}
        owner.enroll_group(name, {"type": "x509", "x509": {"signingCertificates": pair}})

    yield create
    owner.call("DELETE", f"/enrollmentGroups/{name}", status=204)


def state(device: Registrant, **members: Any) -> dict[str, Any]:
    return dict(device.register(**members)["registrationState"])


def amqp(emulator: Emulator, name: str, key: str = KEY) -> AmqpDevice:
    device = AmqpDevice(emulator, name)
    device.plain(sas_token(device.address, key, policy="registration"))
    device.attach()
    return device


# --- 6.1 endpoints, names, authentication


@pytest.mark.parametrize(
    ("identifier", "valid"),
    [
        *((each, True) for each in ("a", "A-b._:9", "x-", "1" * 128)),
        *((each, False) for each in ("a.", "a_", "a:", "1" * 129, "a b", "ä", "a+b")),
    ],
)
def test_registration_id(owner: Owner, identifier: str, valid: bool) -> None:
    body = {"registrationId": identifier, "attestation": SYMMETRIC}
    answer = owner.request("PUT", f"/enrollments/{identifier}", json=body, params=VERSION)
    assert answer.status_code == (200 if valid else 400)
    if valid:
        owner.call("DELETE", f"/enrollments/{identifier}", status=204)


def test_registration_id_has_no_letter_case(owner: Owner, registrant: Make, name: str) -> None:
    assert registrant(name.upper()).register()["status"] == "assigned"
    assert owner.call("GET", f"/registrations/{name.upper()}")["status"] == "assigned"


@pytest.mark.parametrize("device_id", [None, "another"])
def test_device_id(owner: Owner, registrant: Make, device_id: str | None) -> None:
    name = new_id()
    owner.enroll(name, **({"deviceId": f"{name}-{device_id}"} if device_id else {}))
    wanted = f"{name}-{device_id}" if device_id else name
    assert state(registrant(name))["deviceId"] == wanted


def test_device_id_of_a_group(owner: Owner, registrant: Make, group: str) -> None:
    name = new_id()
    assert state(registrant(name, derived(KEY, name)))["deviceId"] == name
    body = {"enrollmentGroupId": group, "attestation": SYMMETRIC, "deviceId": "x"}
    assert "deviceId" not in owner.call("PUT", f"/enrollmentGroups/{group}", body, If_Match="*")


@pytest.mark.parametrize("policy", ["registration", None])
def test_sas_token(registrant: Make, name: str, policy: str | None) -> None:
    assert registrant(name, policy=policy).register()["status"] == "assigned"


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_group_key(registrant: Make, group: str, key: str) -> None:
    name = new_id()
    assert registrant(name, derived(key, name)).register()["status"] == "assigned"


def test_x509_common_name(owner: Owner, registrant: Make, folder: Path) -> None:
    name, other = new_id(), issue(new_id())
    pair = {"primary": {"certificate": pem(other)}}
    owner.enroll(name, {"type": "x509", "x509": {"clientCertificates": pair}})
    assert registrant(name, None, other.client_file(folder)).refused() == 401002


@pytest.mark.parametrize(
    ("signer", "chain", "accepted"),
    [
        (INTERMEDIATE, (), True),
        (ROOT, (INTERMEDIATE,), True),
        (ROOT, (), False),  # the service does not know what is between them
    ],
)
def test_x509_group_and_chain(
    registrant: Make,
    signing_group: Callable[[Credential], None],
    folder: Path,
    signer: Credential,
    chain: tuple[Credential, ...],
    accepted: bool,
) -> None:
    signing_group(signer)
    name = new_id()
    device = registrant(name, None, issue(name, by=INTERMEDIATE, chain=chain).client_file(folder))
    assert device.begin().status_code == (202 if accepted else 401)


@pytest.mark.parametrize("version", ["2019-03-31", "2021-06-01", "2025-07-01-preview"])
def test_api_version(registrant: Make, name: str, version: str) -> None:
    device = registrant(name)
    url, device.url = device.url, ""
    answer = device.send("PUT", f"{url}/register?api-version={version}")
    assert answer.status_code == 202


# --- 6.2 MQTT


@pytest.mark.parametrize("path", ["/$iothub/websocket", "/"])
def test_mqtt_web_socket(emulator: Emulator, name: str, path: str) -> None:
    with WebSocketWire(emulator.host_name, emulator.https_port, trust(emulator), path=path) as wire:
        wire.send(mqtt_device.greeting(name))
        wire.expect(raw.connack(0))


@pytest.mark.parametrize(
    "tail",
    ["/api-version=2019-03-31", "/api-version=2019-03-31&ClientVersion=test%2F1"],
)
def test_mqtt_connect(emulator: Emulator, name: str, tail: str) -> None:
    with Wire((emulator.host_name, emulator.mqtt_port), trust(emulator)) as wire:
        wire.send(mqtt_device.greeting(name, tail=tail))
        wire.expect(raw.connack(0))


def test_mqtt_session(emulator: Emulator, name: str) -> None:
    resource = f"{ID_SCOPE}/registrations/{name}"
    token = sas_token(resource, KEY, policy="registration")
    hello = raw.connect(name, f"{resource}/api-version=2019-03-31", token, clean=False)
    for _ in range(2):  # none is kept
        with Wire((emulator.host_name, emulator.mqtt_port), trust(emulator)) as wire:
            wire.send(hello)
            wire.expect(raw.connack(0))
            wire.send(raw.subscribe(1, ("$dps/registrations/res/#", 2)))
            wire.expect(raw.suback(1, 1))


def test_mqtt_register_and_poll(emulator: Emulator, name: str) -> None:
    rid = str(uuid.uuid4())
    with connect(emulator, name) as wire:
        body = json.dumps({"registrationId": name, "payload": {"a": 1}}).encode()
        topic, pending = ask(wire, mqtt_device.REGISTER.format(rid), body)
        assert topic == f"202/?$rid={rid}&retry-after=3"
        assert {*pending} == {"operationId", "status"}
        assert pending["status"] == "assigning"
        poll = mqtt_device.STATUS.format(7, pending["operationId"])
        topic, final = ask(wire, poll, b" ")
        assert topic == "200/?$rid=7"
        assert {*final} == {"operationId", "status", "registrationState"}
        assert final["status"] == "assigned"
        assert "connectionProfile" not in final["registrationState"]


def test_mqtt_empty_body(emulator: Emulator, name: str) -> None:
    with connect(emulator, name) as wire:
        assert ask(wire, mqtt_device.REGISTER.format(1))[1]["status"] == "assigning"


def test_mqtt_later_answers(emulator: Emulator, owner: Owner, webhook: Webhook) -> None:
    name = new_id()
    owner.enroll(name, **webhook.policy)
    webhook.may_answer.clear()
    with connect(emulator, name) as wire:
        _, pending = ask(wire, mqtt_device.REGISTER.format(1))
        topic, later = ask(wire, mqtt_device.STATUS.format(2, pending["operationId"]))
        assert topic == "202/?$rid=2&retry-after=3"
        assert later["registrationState"] == {"registrationId": name, "status": "assigning"}


def test_mqtt_errors(emulator: Emulator, name: str) -> None:
    with connect(emulator, name) as wire:
        topic, body = ask(wire, mqtt_device.REGISTER.format(1), b"{")
        assert topic == "400/?$rid=1"
        assert {*body} >= {"errorCode", "trackingId", "message", "timestampUtc"}


def test_mqtt_has_no_tpm(emulator: Emulator, owner: Owner) -> None:
    name = new_id()
    owner.enroll(name, {"type": "tpm", "tpm": a_tpm().document})
    with Wire((emulator.host_name, emulator.mqtt_port), trust(emulator)) as wire:
        wire.send(mqtt_device.greeting(name, None))
        wire.expect(raw.connack(5))


# --- 6.3 HTTPS and AMQP


@pytest.mark.parametrize("force", ["", "&forceRegistration=true"])
def test_https_register(registrant: Make, name: str, force: str) -> None:
    device = registrant(name)
    url, device.url = device.url, ""
    answer = device.send("PUT", f"{url}/register?x=1{force}", {"registrationId": name})
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Retry-After"] == "3"
    uuid.UUID(answer.headers["x-ms-request-id"])
    assert f"/operations/{body['operationId']}" in answer.headers["Location"]
    assert re.fullmatch(r"5\.[0-9a-f]{16}\.[0-9a-f-]{36}", body["operationId"])
    assert body["status"] == "assigning"


def test_https_poll(registrant: Make, owner: Owner, webhook: Webhook) -> None:
    name = new_id()
    owner.enroll(name, **webhook.policy)
    webhook.says(iotHubHostName="hub.example", payload={"a": [1]})
    webhook.may_answer.clear()
    device = registrant(name)
    path = f"/operations/{device.begin().json()['operationId']}"
    assert device.send("GET", path).status_code == 202
    webhook.may_answer.set()
    final = state(device)
    assert (final["assignedHub"], final["payload"]) == ("hub.example", {"a": [1]})


def test_https_look_up(registrant: Make, name: str) -> None:
    device = registrant(name)
    final = state(device)
    assert device.send("POST", "", {"registrationId": name}).json() == final


def test_https_final_body(registrant: Make, name: str, emulator: Emulator) -> None:
    final = registrant(name).register()
    found = final["registrationState"]
    assert {*found} == {
        *("registrationId", "createdDateTimeUtc", "assignedHub", "deviceId", "status"),
        *("substatus", "lastUpdatedDateTimeUtc", "etag"),
    }
    assert (found["assignedHub"], found["status"]) == (emulator.host_name, "assigned")
    etag = base64.b64decode(found["etag"]).decode()
    assert re.fullmatch(r'"[0-9a-f-]+"', etag)


def test_x509_final_body(owner: Owner, registrant: Make, folder: Path) -> None:
    name = new_id()
    credential = issue(name)
    pair = {"primary": {"certificate": pem(credential)}}
    owner.enroll(name, {"type": "x509", "x509": {"clientCertificates": pair}})
    assert state(registrant(name, None, credential.client_file(folder)))["x509"] == {}


def test_tpm(owner: Owner, registrant: Make) -> None:
    name, tpm = new_id(), a_tpm()
    owner.enroll(name, {"type": "tpm", "tpm": tpm.document})
    first = registrant(name, None).begin(tpm=tpm.document)
    assert first.status_code == 401
    assert {*first.json()} == {"message", "authenticationKey", "keyName"}
    tpm.activate(base64.b64decode(first.json()["authenticationKey"]))
    device = registrant(name)
    resource = f"{ID_SCOPE}/registrations/{name}"
    device._session.headers["Authorization"] = tpm.token(resource, first.json()["keyName"])
    tpm.activate(base64.b64decode(state(device, tpm=tpm.document)["tpm"]["authenticationKey"]))


def test_amqp(emulator: Emulator, name: str) -> None:
    with amqp(emulator, name) as device:
        properties, pending = device.request(amqp_device.REGISTER)
        assert properties["retry-after"] == 3
        _, final = device.request(amqp_device.status(pending["operationId"]))
        assert final["status"] == "assigned"


# --- 6.4 states and failures


def test_error_body(registrant: Make, name: str) -> None:
    answer = registrant(name, OTHER_KEY[:-5] + "AAAA=").begin()
    body = answer.json()
    assert {*body} == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert answer.headers["x-ms-error-code"] == str(body["errorCode"])


@pytest.mark.parametrize("what", ["wrong key", "unknown"])
def test_wrong_symmetric_key(emulator: Emulator, owner: Owner, registrant: Make, what: str) -> None:
    name = new_id()
    if what == "wrong key":
        owner.enroll(name, {"type": "symmetricKey"})
    with connect(emulator, name) as wire:  # it is accepted
        topic, body = ask(wire, mqtt_device.REGISTER.format(1))
    assert topic == "401/?$rid=1"
    assert (body["errorCode"], body["message"]) == (401000, "Unauthorized")
    assert registrant(name).refused() == 401000
    with amqp(emulator, name) as device, pytest.raises(RefusedError) as refused:
        device.request(amqp_device.REGISTER)
    assert refused.value.body["errorCode"] == 401000


def test_group_key_as_device_key(registrant: Make, group: str) -> None:
    assert registrant(new_id(), KEY).refused() == 401000


def test_wrong_x509(emulator: Emulator, registrant: Make, folder: Path) -> None:
    name = new_id()
    file = issue(name).client_file(folder)
    assert registrant(name, None, file).refused() == 401002
    tls = trust(emulator)
    tls.load_cert_chain(file)
    with connect(emulator, name, None, tls=tls) as wire:
        topic, body = ask(wire, mqtt_device.REGISTER.format(1))
    assert topic == "401/?$rid=1"
    assert (body["errorCode"], body["message"]) == (401002, "Invalid certificate.")
    with Wire((emulator.host_name, emulator.mqtt_port), trust(emulator)) as wire:
        wire.send(mqtt_device.greeting(name, None))
        wire.expect(raw.connack(5))


def test_root_that_is_not_verified(
    owner: Owner, registrant: Make, service: Service, folder: Path
) -> None:
    name, path = new_id(), "/_emulator/certificates/contract-root"
    block = {"type": "x509", "x509": {"caReferences": {"primary": "contract-root"}}}
    owner.enroll(name, block)
    body = {"properties": {"certificate": pem(ROOT), "isVerified": False}}
    assert service.request("PUT", path, json=body).ok
    found = state(registrant(name, None, issue(name, by=ROOT).client_file(folder)))
    assert (found["status"], found["errorCode"]) == ("failed", 401002)
    assert found["errorMessage"] == "Invalid certificate"
    assert service.request("DELETE", path).ok


def test_disabled_enrollment(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(name, provisioningStatus="disabled")
    assert registrant(name).register()["status"] == "disabled"
    assert owner.call("GET", f"/registrations/{name}")["status"] == "disabled"


def test_no_hub(owner: Owner, registrant: Make, webhook: Webhook) -> None:
    name = new_id()
    owner.enroll(name, **webhook.policy)
    webhook.says(iotHubHostName="")
    final = registrant(name).register()
    assert (final["status"], final["registrationState"]["errorCode"]) == ("failed", 400208)
    assert owner.call("GET", f"/registrations/{name}")["status"] == "failed"


def test_a_hub_that_refuses(emulator: Emulator, registrant: Make, name: str) -> None:
    with emulator.faults.injected("fail-registration", device=name, count=1):
        found = state(registrant(name))
    assert (found["status"], found["errorCode"]) == ("failed", 400209)
    assert found["errorMessage"].startswith("ErrorCode:")


def test_unknown_tpm(registrant: Make) -> None:
    name, tpm = new_id(), a_tpm()
    sealed = registrant(name, None).begin(tpm=tpm.document).json()["authenticationKey"]
    tpm.activate(base64.b64decode(sealed))
    device = registrant(name)
    token = tpm.token(f"{ID_SCOPE}/registrations/{name}")
    device._session.headers["Authorization"] = token
    found = state(device, tpm=tpm.document)
    assert (found["status"], found["errorCode"]) == ("failed", 404201)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/enrollments/none", 404201), ("/enrollmentGroups/none", 404202)],
)
def test_unknown_in_the_service_api(owner: Owner, path: str, code: int) -> None:
    owner.refuse("GET", path, code)


def test_invalid_id_scope(emulator: Emulator, name: str) -> None:
    with Wire((emulator.host_name, emulator.mqtt_port), trust(emulator)) as wire:
        wire.send(mqtt_device.greeting(name).replace(ID_SCOPE.encode(), b"0ne00000000"))
        wire.expect_closed()
    with AmqpDevice(emulator, name, scope="0ne00000000") as device:
        device.plain("x")
        with pytest.raises(RefusedError):
            device.attach()


def test_throttled(emulator: Emulator) -> None:
    rates = ("registrations=1/min", "registration-polls=1/min")
    with second_hub(emulator, throttle=rates) as hub, Owner(hub) as owner:
        name = new_id()
        owner.enroll(name)
        device = Registrant(hub, name)
        path = f"/operations/{device.begin().json()['operationId']}"
        assert device.send("GET", path).status_code == 200
        for answer in (device.begin(), device.send("GET", path)):
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize(
    ("migrate", "substatus"), [(True, "deviceDataMigrated"), (False, "deviceDataReset")]
)
def test_substatus(owner: Owner, registrant: Make, migrate: bool, substatus: str) -> None:
    name = new_id()
    policy = {"updateHubAssignment": True, "migrateDeviceData": migrate}
    owner.enroll(name, reprovisionPolicy=policy)
    registrant(name).register()
    owner.change(name, allocationPolicy="static", iotHubs=["new.example"])
    assert state(registrant(name))["substatus"] == "initialAssignment"
    assert owner.call("GET", f"/registrations/{name}")["substatus"] == substatus


# --- 6.5 what lands in the hub


def test_identity_of_a_key(registrant: Make, name: str, service: Service) -> None:
    registrant(name).register()
    found = service.request("GET", f"/devices/{name}").json()["authentication"]
    assert (found["type"], found["symmetricKey"]) == ("sas", KEYS)


def test_identity_of_a_derived_key(registrant: Make, group: str, service: Service) -> None:
    name = new_id()
    registrant(name, derived(KEY, name)).register()
    found = service.request("GET", f"/devices/{name}").json()["authentication"]["symmetricKey"]
    assert found == {slot: derived(key, name) for slot, key in KEYS.items()}


def test_identity_of_a_certificate(
    registrant: Make,
    signing_group: Callable[[Credential], None],
    folder: Path,
    service: Service,
) -> None:
    signing_group(ROOT)
    name = new_id()
    for _ in range(2):  # another certificate updates it
        credential = issue(name, by=ROOT)
        registrant(name, None, credential.client_file(folder)).register()
        found = service.request("GET", f"/devices/{name}").json()["authentication"]
        assert found["type"] == "selfSigned"
        prints = found["x509Thumbprint"]
        assert credential.sha256.upper() in (prints["primaryThumbprint"] or "")


def test_another_device_id(owner: Owner, registrant: Make, name: str, service: Service) -> None:
    registrant(name).register()
    owner.change(name, deviceId=f"{name}-2")
    registrant(name).register()
    for device_id in (name, f"{name}-2"):
        assert service.request("GET", f"/devices/{device_id}").ok


def test_initial_twin_and_edge(owner: Owner, registrant: Make, service: Service) -> None:
    name = new_id()
    twin = {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}
    owner.enroll(name, initialTwin=twin, capabilities={"iotEdge": True})
    registrant(name).register()
    found = service.request("GET", f"/twins/{name}").json()
    assert (found["tags"], own(found["properties"]["desired"])) == ({"a": 1}, {"b": 2})
    assert found["capabilities"]["iotEdge"] is True


def test_reprovision_policy(owner: Owner, registrant: Make) -> None:
    created = owner.enroll(new_id())
    assert created["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    name, never = new_id(), {"updateHubAssignment": False, "migrateDeviceData": False}
    owner.enroll(name, reprovisionPolicy=never)
    first = state(registrant(name))["assignedHub"]
    owner.change(name, allocationPolicy="static", iotHubs=["new.example"])
    assert state(registrant(name))["assignedHub"] == first


@pytest.mark.parametrize(
    ("policy", "hubs", "wanted"),
    [
        ("hashed", ["a.example", "b.example"], {"a.example", "b.example"}),
        ("geoLatency", ["a.example", "b.example"], {"a.example", "b.example"}),
        ("static", ["a.example"], {"a.example"}),
    ],
)
def test_allocation(
    owner: Owner, registrant: Make, policy: str, hubs: list[str], wanted: set[str]
) -> None:
    name = new_id()
    assert owner.enroll(name)["allocationPolicy"] == "hashed"
    owner.change(name, allocationPolicy=policy, iotHubs=hubs)
    assert state(registrant(name))["assignedHub"] in wanted


def test_custom_allocation(owner: Owner, registrant: Make, webhook: Webhook) -> None:
    name = new_id()
    owner.enroll(name, **webhook.policy)
    webhook.says(iotHubHostName="x.example", initialTwin={"tags": {"a": 1}}, payload=[1])
    found = state(registrant(name), payload={"model": 7})
    assert (found["assignedHub"], found["payload"]) == ("x.example", [1])
    (request,) = webhook.requests
    assert {*request} == {"individualEnrollment", "deviceRuntimeContext", "linkedHubs"}
    context = request["deviceRuntimeContext"]
    assert context == {"registrationId": name, "symmetricKey": {}, "payload": {"model": 7}}


def test_issued_certificate(registrant: Make, name: str) -> None:
    subject = certificates.Name([certificates.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = certificates.CertificateSigningRequestBuilder().subject_name(subject)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    csr = base64.b64encode(der).decode()
    device = registrant(name)
    leaf, root = (
        certificates.load_der_x509_certificate(base64.b64decode(each))
        for each in state(device, csr=csr)["issuedCertificateChain"]
    )
    leaf.verify_directly_issued_by(root)
    assert leaf.subject == subject
    answer = device.send("POST", "", {"registrationId": name, "csr": csr})
    assert answer.status_code == 400


# --- 7 the service API


@pytest.mark.parametrize(
    ("family", "member"),
    [("enrollments", "registrationId"), ("enrollmentGroups", "enrollmentGroupId")],
)
def test_enrollment_routes(owner: Owner, family: str, member: str) -> None:
    name = new_id()
    body = {member: name, "attestation": {"type": "symmetricKey"}}
    created = owner.call("PUT", f"/{family}/{name}", body)
    keys = created["attestation"]["symmetricKey"]
    assert all(len(base64.b64decode(key)) == 64 for key in keys.values())
    read = owner.call("GET", f"/{family.lower()}/{name}")  # letter case does not matter
    assert "symmetricKey" not in read["attestation"]
    shown = owner.call("POST", f"/{family}/{name}/attestationmechanism")
    assert shown == {"type": "symmetricKey", "symmetricKey": keys}
    etag = read["etag"].strip('"')
    for if_match in (etag, "*"):
        read = owner.call("PUT", f"/{family}/{name}", read, If_Match=if_match)
    owner.refuse("DELETE", f"/{family}/{name}", 412201, If_Match=f'"{etag}"')
    owner.call("DELETE", f"/{family}/{name}", status=204, If_Match=read["etag"])


@pytest.mark.parametrize("mode", ["create", "update", "updateIfMatchETag", "delete"])
def test_bulk(owner: Owner, mode: str) -> None:
    name, missing = new_id(), new_id()
    item = {"registrationId": name, "attestation": SYMMETRIC}
    if mode != "create":
        item["etag"] = owner.call("PUT", f"/enrollments/{name}", item)["etag"]
    bad = {"registrationId": missing, "attestation": {"type": "x"}}
    answer = owner.call("POST", "/enrollments", {"mode": mode, "enrollments": [item, bad]})
    assert answer["isSuccessful"] is False
    (error,) = answer["errors"]
    assert {*error} == {"registrationId", "errorCode", "errorStatus"}
    assert error["registrationId"] == missing


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/enrollments/query", "Enrollment"),
        ("/enrollmentGroups/query", "EnrollmentGroup"),
        ("/registrations/{group}/query", "DeviceRegistration"),
    ],
)
def test_queries(owner: Owner, registrant: Make, group: str, path: str, kind: str) -> None:
    other = new_id("group")
    owner.enroll_group(other)
    for _ in range(2):
        owner.enroll(new_id())
        device = new_id()
        registrant(device, derived(KEY, device)).register()
    owner.call("DELETE", f"/enrollmentGroups/{other}", status=204)
    url, body = path.format(group=group), {"query": "SELECT *"}
    headers = {"x-ms-max-item-count": "1"}
    found: list[Any] = []
    while True:
        answer = owner.request("POST", url, json=body, params=VERSION, headers=headers)
        assert answer.headers["x-ms-item-type"] == kind
        found += answer.json()
        assert len(answer.json()) <= 1
        if not (token := answer.headers.get("x-ms-continuation")):
            break
        headers["x-ms-continuation"] = token
    assert found


def test_registration_routes(owner: Owner, registrant: Make, name: str) -> None:
    registrant(name).register()
    assert owner.call("GET", f"/registrations/{name}")["registrationId"] == name
    owner.call("DELETE", f"/registrations/{name}", status=204)
    owner.refuse("GET", f"/registrations/{name}", 404203)


@pytest.mark.parametrize("version", ["2021-10-01", "2019-03-31"])
def test_service_api_versions(owner: Owner, name: str, version: str) -> None:
    answer = owner.request("GET", f"/enrollments/{name}", params={"api-version": version})
    assert answer.status_code == 200


def test_enrollment_members(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(
        name,
        deviceId="d",
        optionalDeviceInformation={"a": 1},
        initialTwin={"tags": {"a": 1}},
        iotHubs=["a.example"],
        allocationPolicy="custom",
        customAllocationDefinition={"webhookUrl": "http://localhost/", "apiVersion": "1"},
    )
    owner.change(name, allocationPolicy="static")
    registrant(name).register()
    found = owner.call("GET", f"/enrollments/{name}")
    assert {*found} >= {
        *("registrationId", "deviceId", "registrationState", "optionalDeviceInformation"),
        *("attestation", "capabilities", "initialTwin", "etag", "provisioningStatus"),
        *("reprovisionPolicy", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"),
        *("allocationPolicy", "iotHubs"),
    }
    assert re.fullmatch(r'"[0-9a-f-]+"', found["etag"])


@pytest.mark.parametrize(
    ("attestation", "shown"),
    [
        ({"type": "none"}, {"type": "none"}),
        ({"type": "tpm", "tpm": a_tpm().document}, {"type": "tpm", "tpm": a_tpm().document}),
        (SYMMETRIC, SYMMETRIC),
        (
            {"type": "x509", "x509": {"caReferences": {"primary": "a", "secondary": "b"}}},
            {"type": "x509", "x509": {"caReferences": {"primary": "a", "secondary": "b"}}},
        ),
    ],
)
def test_attestation(owner: Owner, attestation: Any, shown: Any) -> None:
    assert owner.enroll(new_id(), attestation)["attestation"] == shown


@pytest.mark.parametrize("kind", ["clientCertificates", "signingCertificates"])
def test_certificate_info(owner: Owner, kind: str) -> None:
    name, own_ = new_id(), issue("x", ca=True)
    block = {"type": "x509", "x509": {kind: {"primary": {"certificate": pem(own_)}}}}
    if kind == "clientCertificates":
        found = owner.enroll(name, block)
    else:
        found = owner.enroll_group(name, block)
        owner.call("DELETE", f"/enrollmentGroups/{name}", status=204)
    info = found["attestation"]["x509"][kind]["primary"]["info"]
    assert {*info} == {
        *("subjectName", "sha1Thumbprint", "sha256Thumbprint", "issuerName"),
        *("notBeforeUtc", "notAfterUtc", "serialNumber", "version"),
    }


def test_largest_message(registrant: Make, name: str) -> None:
    device = registrant(name)
    assert device.begin(payload="x" * (95 * 1024)).status_code == 202
    assert device.begin(payload="x" * (96 * 1024)).status_code == 413
