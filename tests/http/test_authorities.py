"""CAs over `/_emulator/certificates`, and the devices whose certificates they sign."""

from __future__ import annotations

import base64
import datetime
import hashlib
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from emulator import Emulator, Settings
from tests.http.support import check_error
from tests.mqtt.raw import connack, connect
from tests.support import API_VERSION, Service, fields_of, sas_token, second_hub, trust
from tests.x509 import DAY, Credential, issue

ROUTE = "/_emulator/certificates"
ROOT = issue("Factory", ca=True)
INTERMEDIATE = issue("Line 1", by=ROOT, ca=True)
ACCEPTED, NOT_AUTHORIZED = 0, 5


@pytest.fixture(scope="module")
def hub(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A hub with a CA of its start."""
    folder = tmp_path_factory.mktemp("start")
    file = folder / "start.pem"
    file.write_bytes(pem(issue("At the start", ca=True)).encode() + pem(INTERMEDIATE).encode())
    with second_hub(emulator, authorities=(file,)) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client
        for each in client.request("GET", ROUTE).json()["value"]:
            if each["etag"]:
                assert client.request("DELETE", f"{ROUTE}/{each['name']}").status_code == 204


def pem(credential: Credential) -> str:
    return credential.certificate.public_bytes(Encoding.PEM).decode()


def body(certificate: str, **properties: object) -> dict[str, Any]:
    return {"properties": {"certificate": certificate, **properties}}


def put(
    service: Service, name: str, credential: Credential, verified: bool | None = None
) -> requests.Response:
    given = {} if verified is None else {"isVerified": verified}
    return service.request("PUT", f"{ROUTE}/{name}", json=body(pem(credential), **given))


# --- the routes


def test_a_ca_is_registered_read_changed_and_removed(service: Service) -> None:
    made = put(service, "Factory", ROOT)
    assert made.status_code == 201
    document = made.json()
    assert document["type"] == "Microsoft.Devices/IotHubs/Certificates"
    properties = document["properties"]
    assert properties["subject"] == "CN=Factory"
    assert properties["thumbprint"] == ROOT.sha1.upper()
    end = ROOT.certificate.not_valid_after_utc
    assert properties["expiry"] == end.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert properties["isVerified"] is False
    assert base64.b64decode(properties["certificate"]) == ROOT.der
    for path in (f"{ROUTE}/Factory", f"{ROUTE}/FACTORY"):
        assert service.request("GET", path).json() == document
    assert service.request("GET", ROUTE).json()["value"][2:] == [document]

    changed = put(service, "Factory", ROOT, True)
    assert changed.status_code == 200
    assert changed.json()["properties"]["isVerified"] is True
    assert changed.json()["properties"]["created"] == properties["created"]
    assert changed.json()["etag"] != document["etag"]
    assert put(service, "Factory", ROOT).json()["properties"]["isVerified"] is True
    other = issue("Factory", ca=True)
    assert put(service, "Factory", other).json()["properties"]["isVerified"] is False

    assert service.request("DELETE", f"{ROUTE}/factory").status_code == 204
    for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/verify")):
        answer = service.request(verb, f"{ROUTE}/Factory{path}", json={"certificate": "x"})
        text = check_error(answer, 404, "GenericNotFound")
        assert text == "The certificate Factory is unknown"


def test_an_etag_protects_each_change(service: Service) -> None:
    etag = put(service, "Factory", ROOT).json()["etag"]
    stale = {"If-Match": '"stale"'}
    for verb, path in (
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/generateVerificationCode"),
        ("POST", "/verify"),
    ):
        document = body(pem(ROOT)) if verb == "PUT" else {"certificate": pem(ROOT)}
        answer = service.request(verb, f"{ROUTE}/Factory{path}", json=document, headers=stale)
        check_error(answer, 412, "PreconditionFailed")
    new = service.request("PUT", f"{ROUTE}/New", json=body(pem(INTERMEDIATE)), headers=stale)
    check_error(new, 412, "PreconditionFailed")
    headers: dict[str, str | None] = {"If-Match": f'"{etag}"'}
    assert service.request("DELETE", f"{ROUTE}/Factory", headers=headers).status_code == 204


@pytest.mark.parametrize(
    "text",
    [
        pem(ROOT),
        base64.b64encode(pem(ROOT).encode()).decode(),
        base64.b64encode(ROOT.der).decode(),
        f"a comment\n{pem(ROOT)}",
    ],
    ids=["PEM", "PEM in base64", "DER in base64", "with a comment"],
)
def test_a_certificate_comes_in_several_forms(service: Service, text: str) -> None:
    answer = service.request("PUT", f"{ROUTE}/Factory", json=body(text))
    assert answer.json()["properties"]["thumbprint"] == ROOT.sha1.upper()


# An X.400 address, which the parser refuses only when it is asked for the extension.
ODD_NAMES = x509.UnrecognizedExtension(
    x509.SubjectAlternativeName.oid, bytes((0x30, 4, 0xA3, 2, 5, 0))
)


SIGNS_NO_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def with_key(key: Any, *extensions: x509.ExtensionType) -> str:
    """Make a CA that signs itself with some key, PEM."""
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    for each in extensions:
        made = made.add_extension(each, critical=False)
    return made.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", "properties.certificate is missing"),
    "text": (lambda: "no certificate", "Invalid certificate. Use one certificate: PEM, or base64"),
    "damaged": (
        lambda: base64.b64encode(ROOT.der[:-9]).decode(),
        "Invalid certificate. Use one certificate: PEM, or base64",
    ),
    "a key": (
        lambda: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "Invalid certificate. Use one certificate: PEM, or base64",
    ),
    "two": (lambda: pem(ROOT) + pem(INTERMEDIATE), "2 certificates in one. Register each by"),
    "a device's": (lambda: pem(issue("kitchen", by=ROOT, ca=False)), "is not that of a CA: its"),
    "without constraints": (lambda: pem(issue("kitchen")), "is not that of a CA: its"),
    "expired": (
        lambda: pem(issue("Old", ca=True, end=-DAY / 2)),
        "The certificate has expired: 20",
    ),
    "too large": (
        lambda: pem(issue("Large", ca=True, comment=bytes(30_000))),
        "characters. 32768 are allowed",
    ),
    "a weak key": (
        lambda: with_key(rsa.generate_private_key(65537, 1024)),
        "an RSA key of 1024 bits. 2048 or more are allowed",
    ),
    "an Edwards curve": (
        lambda: with_key(ed25519.Ed25519PrivateKey.generate()),
        "a key of another kind. Use RSA, or EC on P-256, P-384 or P-521",
    ),
    "a rare curve": (
        lambda: with_key(ec.generate_private_key(ec.SECP256K1())),
        "a key of another kind. Use RSA, or EC on P-256, P-384 or P-521",
    ),
    "a name of a rare type": (
        lambda: with_key(ec.generate_private_key(ec.SECP256R1()), ODD_NAMES),
        "Invalid certificate. Use one certificate: PEM, or base64",
    ),
    "a key that signs no certificates": (
        lambda: with_key(ec.generate_private_key(ec.SECP256R1()), SIGNS_NO_CERTIFICATES),
        "not that of a CA that signs: its keyUsage has no keyCertSign",
    ),
    "DSA": (
        lambda: with_key(dsa.generate_private_key(2048)),
        "a key of another kind. Use RSA, or EC on P-256, P-384 or P-521",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_ca_is_refused(service: Service, kind: str) -> None:
    make, text = REFUSED[kind]
    answer = service.request("PUT", f"{ROUTE}/Odd", json=body(make(), isVerified=True))
    assert text in check_error(
        answer, 400, "ArgumentNull" if kind == "empty" else "ArgumentInvalid"
    )
    assert service.request("GET", f"{ROUTE}/Odd").status_code == 404


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=["RSA", "P-384"],
)
def test_other_kinds_of_keys_are_allowed(service: Service, key: Any) -> None:
    answer = service.request("PUT", f"{ROUTE}/Good", json=body(with_key(key)))
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("document", "name", "error"),
    [
        ([], "Factory", "DeserializationError"),
        ({}, "Factory", "ArgumentNull"),
        ({"properties": "x"}, "Factory", "ArgumentInvalid"),
        (body(pem(ROOT), isVerified="yes"), "Factory", "ArgumentInvalid"),
        (body(pem(ROOT)), "a b", "ArgumentInvalid"),
        (body(pem(ROOT)), "x" * 65, "ArgumentInvalid"),
    ],
)
def test_wrong_documents_and_names_are_refused(
    service: Service, document: object, name: str, error: str
) -> None:
    check_error(service.request("PUT", f"{ROUTE}/{name}", json=document), 400, error)


def test_a_ca_is_registered_once(service: Service) -> None:
    put(service, "Factory", ROOT)
    text = check_error(put(service, "Again", ROOT), 400, "ArgumentInvalid")
    assert text == "The certificate is registered already, as Factory"


def test_there_are_at_most_25(service: Service) -> None:
    for number in range(25):
        made = put(service, f"ca-{number}", issue(f"CA {number}", ca=True))
        assert made.status_code == 201
    text = check_error(put(service, "one-more", ROOT), 403, "GenericForbidden")
    assert text == "The hub has 25 certificates, its limit. Delete one first"
    assert put(service, "ca-3", ROOT).status_code == 200


def test_the_cas_of_the_start_are_verified_and_stay(service: Service) -> None:
    found = service.request("GET", ROUTE).json()["value"]
    assert [each["name"] for each in found] == ["start", "start-2"]
    assert all(each["properties"]["isVerified"] for each in found)
    assert (
        found[1]["properties"]["thumbprint"] == hashlib.sha1(INTERMEDIATE.der).hexdigest().upper()
    )
    for answer in (
        put(service, "Start", ROOT),
        service.request("DELETE", f"{ROUTE}/start"),
        service.request("POST", f"{ROUTE}/start/generateVerificationCode"),
    ):
        text = check_error(answer, 400, "ArgumentInvalid")
        assert text.endswith("is that of --client-ca. Restart the hub without it")


def test_a_right_is_needed(hub: Emulator, service: Service) -> None:
    fields = fields_of(hub.service_connection_string)
    token = sas_token(fields["HostName"], fields["SharedAccessKey"], policy="service")
    answer = service.request("GET", ROUTE, headers={"Authorization": token})
    assert answer.status_code == 401


# --- proof of possession


def code_of(service: Service, name: str) -> str:
    answer = service.request("POST", f"{ROUTE}/{name}/generateVerificationCode")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["properties"]["verificationCode"])


def verify(service: Service, name: str, proof: Credential) -> requests.Response:
    return service.request("POST", f"{ROUTE}/{name}/verify", json={"certificate": pem(proof)})


def test_a_proof_verifies_a_ca(service: Service) -> None:
    put(service, "Factory", ROOT)
    first, code = code_of(service, "Factory"), code_of(service, "Factory")
    assert first != code
    assert len(code) == 48
    assert "verificationCode" not in service.request("GET", f"{ROUTE}/Factory").json()["properties"]
    wrong = {
        "is 'Factory', not the verification code": ROOT,
        f"is '{first}', not the verification code {code}": issue(first, by=ROOT),
        "The CA did not sign the proof. Sign it with": issue(code),
        "The CA did not sign": issue(code, by=INTERMEDIATE),
        "The proof has expired, or is not valid yet": issue(code, by=ROOT, end=-DAY / 2),
        "has expired, or is not valid yet. Make": issue(code, by=ROOT, start=DAY / 2),
    }
    for text, proof in wrong.items():
        assert text in check_error(verify(service, "Factory", proof), 400, "ArgumentInvalid")
    empty = service.request("POST", f"{ROUTE}/Factory/verify", json={})
    check_error(empty, 400, "ArgumentNull")

    answer = verify(service, "Factory", issue(code.lower(), by=ROOT))
    assert answer.json()["properties"]["isVerified"] is True
    text = check_error(verify(service, "Factory", issue(code, by=ROOT)), 400, "ArgumentInvalid")
    assert text == "The certificate Factory has no verification code. Generate one first"


def test_another_certificate_ends_a_code(service: Service) -> None:
    put(service, "Factory", ROOT)
    code = code_of(service, "Factory")
    other = issue("Factory", ca=True)
    put(service, "Factory", other)
    check_error(verify(service, "Factory", issue(code, by=other)), 400, "ArgumentInvalid")


# --- devices


class Fleet:
    """Devices of a hub whose certificates a CA signs."""

    def __init__(self, hub: Emulator, service: Service, folder: Path) -> None:
        self._hub = hub
        self._folder = folder
        self.id = f"x509-{uuid.uuid4().hex[:12]}"
        document = {"deviceId": self.id, "authentication": {"type": "certificateAuthority"}}
        assert service.request("PUT", f"/devices/{self.id}", json=document).ok

    def open(self, credential: Credential) -> tuple[int, socket.socket]:
        """Connect over MQTT; return the code of the CONNACK, and the connection."""
        context = trust(self._hub)
        context.load_cert_chain(credential.client_file(self._folder))
        host = self._hub.host_name
        plain = socket.create_connection((host, self._hub.mqtt_port), timeout=10)
        tls = context.wrap_socket(plain, server_hostname=host)
        tls.sendall(connect(self.id, f"{host}/{self.id}/?api-version={API_VERSION}", None))
        answer = tls.recv(4)
        assert answer == connack(answer[3])
        return answer[3], tls

    def code(self, credential: Credential) -> int:
        """Connect and disconnect; return the code of the CONNACK."""
        code, connection = self.open(credential)
        connection.close()
        return code


@pytest.fixture
def fleet(hub: Emulator, service: Service, tmp_path: Path) -> Fleet:
    return Fleet(hub, service, tmp_path)


def test_a_device_connects_once_its_ca_is_verified_until_it_is_removed(
    fleet: Fleet, service: Service
) -> None:
    own = issue(fleet.id, by=ROOT)
    assert fleet.code(own) == NOT_AUTHORIZED
    put(service, "Factory", ROOT)
    assert fleet.code(own) == NOT_AUTHORIZED
    proof = issue(code_of(service, "Factory"), by=ROOT)
    assert fleet.code(own) == NOT_AUTHORIZED
    assert verify(service, "Factory", proof).ok
    code, connection = fleet.open(own)
    assert code == ACCEPTED
    assert service.request("DELETE", f"{ROUTE}/Factory").status_code == 204
    # As on a real hub, an open connection stays until it ends.
    connection.sendall(b"\xc0\x00")
    assert connection.recv(2) == b"\xd0\x00"
    connection.close()
    assert fleet.code(own) == NOT_AUTHORIZED


def test_a_chain_is_checked_up_to_the_registered_ca(fleet: Fleet, service: Service) -> None:
    second = issue("Line 2", by=ROOT, ca=True)
    put(service, "Factory", ROOT, True)
    assert fleet.code(issue(fleet.id, by=second, chain=(second,))) == ACCEPTED
    assert fleet.code(issue(fleet.id, by=second)) == NOT_AUTHORIZED
    put(service, "Line-2", second, True)
    assert fleet.code(issue(fleet.id, by=second)) == ACCEPTED
    assert fleet.code(issue("another", by=second)) == NOT_AUTHORIZED
    assert fleet.code(issue(fleet.id, by=second, end=-DAY / 2)) == NOT_AUTHORIZED
    forged = issue("Line 2", by=issue("Factory", ca=True), ca=True)
    assert fleet.code(issue(fleet.id, by=forged, chain=(forged,))) == NOT_AUTHORIZED


@pytest.mark.parametrize("subject", ["Twin", "TWIN"])
def test_cas_with_the_same_subject(fleet: Fleet, service: Service, subject: str) -> None:
    """As where a CA gets a new key, or two CAs were made by the same lines."""
    roots = [issue("Twin", ca=True), issue(subject, ca=True), issue("Twin", ca=True)]
    lines = [issue("Line", by=each, ca=True) for each in roots]
    for number, root in enumerate(roots):
        put(service, f"Twin-{number}", root, True)
    for root, line in zip(roots, lines, strict=True):
        assert fleet.code(issue(fleet.id, by=root)) == ACCEPTED
        assert fleet.code(issue(fleet.id, by=line, chain=(line,))) == ACCEPTED
    assert fleet.code(issue(fleet.id, by=issue("Twin", ca=True))) == NOT_AUTHORIZED
    assert service.request("DELETE", f"{ROUTE}/Twin-1").status_code == 204
    codes = [fleet.code(issue(fleet.id, by=root)) for root in roots]
    assert codes == [ACCEPTED, NOT_AUTHORIZED, ACCEPTED]


def test_a_replaced_certificate_counts_no_longer(fleet: Fleet, service: Service) -> None:
    new = issue("Factory", ca=True)
    put(service, "Factory", ROOT, True)
    put(service, "Factory", new, True)
    assert fleet.code(issue(fleet.id, by=ROOT)) == NOT_AUTHORIZED
    assert fleet.code(issue(fleet.id, by=new)) == ACCEPTED
    put(service, "Factory", new, False)
    assert fleet.code(issue(fleet.id, by=new)) == NOT_AUTHORIZED


# --- its state


def names(service: Service) -> dict[str, bool]:
    found = service.request("GET", ROUTE).json()["value"]
    return {each["name"]: each["properties"]["isVerified"] for each in found}


def test_cas_last(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator, data_dir=tmp_path) as hub, Service(hub) as service:
        put(service, "Factory", ROOT, True)
        put(service, "Line-1", INTERMEDIATE)
        code = code_of(service, "Line-1")
    with second_hub(emulator, data_dir=tmp_path) as hub, Service(hub) as service:
        assert names(service) == {"Factory": True, "Line-1": False}
        fleet = Fleet(hub, service, tmp_path)
        assert fleet.code(issue(fleet.id, by=ROOT)) == ACCEPTED
        assert verify(service, "Line-1", issue(code, by=INTERMEDIATE)).ok


def test_a_reset_removes_cas_and_a_snapshot_brings_them_back(
    emulator: Emulator, tmp_path: Path
) -> None:
    given = tmp_path / "given.pem"
    given.write_text(pem(INTERMEDIATE))
    with second_hub(emulator, authorities=(given,)) as hub, Service(hub) as service:
        fleet = Fleet(hub, service, tmp_path)
        own = issue(fleet.id, by=ROOT)
        put(service, "Factory", ROOT, True)
        snapshot = service.request("GET", "/_emulator/snapshot").content
        assert fleet.code(own) == ACCEPTED
        assert service.request("POST", "/_emulator/reset").ok
        assert names(service) == {"given": True}
        fleet = Fleet(hub, service, tmp_path)
        assert fleet.code(issue(fleet.id, by=ROOT)) == NOT_AUTHORIZED
        assert fleet.code(issue(fleet.id, by=INTERMEDIATE)) == ACCEPTED
        assert service.request("POST", "/_emulator/restore", data=snapshot).ok
        assert names(service) == {"given": True, "Factory": True}
        fleet = Fleet(hub, service, tmp_path)
        assert fleet.code(issue(fleet.id, by=ROOT)) == ACCEPTED


def test_the_cas_of_a_configuration_file_are_there_after_a_reset(
    emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "root.pem").write_text(pem(ROOT))
    file = tmp_path / "hub.toml"
    file.write_text(
        """
        certificates = [{name = "Factory", path = "root.pem"}]
        devices = [{id = "pump", authentication = "certificateAuthority"}]
        """
    )
    config = Settings.from_file(file).config
    with second_hub(emulator, config=config) as hub, Service(hub) as service:
        put(service, "another", INTERMEDIATE, True)
        assert service.request("POST", "/_emulator/reset").ok
        assert names(service) == {"Factory": True}
        fleet = Fleet(hub, service, tmp_path)
        assert fleet.code(issue(fleet.id, by=ROOT)) == ACCEPTED
        assert fleet.code(issue(fleet.id, by=INTERMEDIATE)) == NOT_AUTHORIZED
