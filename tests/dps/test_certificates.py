"""Devices that register with a certificate, and those that ask for one."""

from __future__ import annotations

import base64
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from emulator import Emulator
from emulator.dps.certificates import Chain
from emulator.testing.addresses import free_loopback_address
from tests.dps.support import Owner, Registrant, new_id, pem
from tests.support import Service, second_hub
from tests.x509 import DAY, Credential, issue

ROOT = issue("Root", ca=True)
INTERMEDIATE = issue("Intermediate", by=ROOT, ca=True)
OTHER_ROOT = issue("Other root", ca=True)


@pytest.fixture(scope="module")
def hub(emulator: Emulator, folder: Path) -> Iterator[Emulator]:
    """An emulator that knows a CA by the name of its file, and by its common name."""
    if sys.platform == "darwin":
        pytest.skip("another emulator has the only loopback address")
    file = folder / "factory-root.pem"
    file.write_bytes(ROOT.certificate.public_bytes(Encoding.PEM))
    options = {"host": free_loopback_address(), "authorities": (file,)}
    with second_hub(emulator, **options) as running:
        yield running


@pytest.fixture(scope="module")
def hub_owner(hub: Emulator) -> Iterator[Owner]:
    with Owner(hub) as client:
        yield client


@pytest.fixture
def hub_service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


@pytest.fixture
def group(hub_owner: Owner) -> Iterator[str]:
    """The id of a group, which is deleted afterwards."""
    name = new_id("group")
    yield name
    hub_owner.call("DELETE", f"/enrollmentGroups/{name}", status=204)


def client(*certificates: Credential) -> dict[str, Any]:
    """Return the attestation of a device with one certificate or two."""
    return {"type": "x509", "x509": {"clientCertificates": _pair(certificates)}}


def signing(*certificates: Credential) -> dict[str, Any]:
    """Return the attestation of a group with one signing certificate or two."""
    return {"type": "x509", "x509": {"signingCertificates": _pair(certificates)}}


def references(*names: str) -> dict[str, Any]:
    """Return an attestation with the names of CAs."""
    pair = dict(zip(("primary", "secondary"), names, strict=False))
    return {"type": "x509", "x509": {"caReferences": pair}}


def _pair(certificates: tuple[Credential, ...]) -> dict[str, Any]:
    slots = zip(("primary", "secondary"), certificates, strict=False)
    return {slot: {"certificate": pem(each)} for slot, each in slots}


@pytest.fixture
def device(hub: Emulator, folder: Path) -> Any:
    """Makes devices with a certificate."""

    def make(name: str, credential: Credential) -> Registrant:
        return Registrant(hub, name, None, credential.client_file(folder))

    return make


# --- a certificate of one device


def test_a_device_registers_with_its_certificate(
    hub_owner: Owner, device: Any, hub_service: Service
) -> None:
    name = new_id()
    first, second = issue(name), issue(name)
    hub_owner.enroll(name, client(first, second))
    for own in (first, second):
        state = device(name, own).register()["registrationState"]
        assert (state["status"], state["x509"]) == ("assigned", {})
        authentication = hub_service.request("GET", f"/devices/{name}").json()["authentication"]
        assert authentication["type"] == "selfSigned"
        assert authentication["x509Thumbprint"]["primaryThumbprint"] == own.sha256.upper()
    assert device(name, issue(name)).refused() == 401002


def test_the_common_name_must_be_the_registration_id(hub_owner: Owner, device: Any) -> None:
    name = new_id()
    own = issue("another")
    hub_owner.enroll(name, client(own))
    assert device(name, own).refused() == 401002


@pytest.mark.parametrize("dates", [(-2 * DAY, -DAY), (DAY, 2 * DAY)])
def test_a_certificate_out_of_its_dates_is_refused(
    hub_owner: Owner, device: Any, dates: tuple[timedelta, timedelta]
) -> None:
    name = new_id()
    own = issue(name, start=dates[0], end=dates[1])
    hub_owner.enroll(name, client(own))
    assert device(name, own).refused() == 401002


def test_a_device_without_any_proof_is_refused(hub: Emulator, hub_owner: Owner) -> None:
    name = new_id()
    hub_owner.enroll(name, client(issue(name)))
    assert Registrant(hub, name, None).refused() == 401000
    assert Registrant(hub, name).refused() == 401000


# --- groups


def test_a_group_of_an_intermediate(
    hub_owner: Owner, device: Any, hub_service: Service, group: str
) -> None:
    hub_owner.enroll_group(group, signing(OTHER_ROOT, INTERMEDIATE))
    name = new_id()
    own = issue(name, by=INTERMEDIATE)
    assert device(name, own).register()["status"] == "assigned"
    authentication = hub_service.request("GET", f"/devices/{name}").json()["authentication"]
    assert authentication["type"] == "selfSigned"
    assert authentication["x509Thumbprint"]["primaryThumbprint"] == own.sha256.upper()
    assert hub_owner.call("GET", f"/registrations/{name}")["status"] == "assigned"


@pytest.mark.parametrize("name_of_ca", ["factory-root", "Root"])
def test_a_group_of_a_root_needs_the_chain(
    hub_owner: Owner, device: Any, group: str, name_of_ca: str
) -> None:
    hub_owner.enroll_group(group, references("unknown", name_of_ca))
    name = new_id()
    direct, with_chain, without = (
        issue(name, by=ROOT),
        issue(name, by=INTERMEDIATE, chain=(INTERMEDIATE,)),
        issue(name, by=INTERMEDIATE),
    )
    for own in (direct, with_chain):
        assert device(name, own).register()["status"] == "assigned"
    assert device(name, without).refused() == 401002


def test_a_long_chain_in_any_order(hub_owner: Owner, device: Any, group: str) -> None:
    below = issue("Below", by=INTERMEDIATE, ca=True)
    hub_owner.enroll_group(group, references("factory-root"))
    name = new_id()
    own = issue(name, by=below, chain=(INTERMEDIATE, ROOT, below))
    assert device(name, own).register()["status"] == "assigned"


def test_an_unknown_ca_is_refused(hub_owner: Owner, device: Any, group: str) -> None:
    hub_owner.enroll_group(group, references("unverified"))
    name = new_id()
    assert device(name, issue(name, by=ROOT)).refused() == 401002


def test_a_group_of_a_ca_that_is_registered_while_the_hub_runs(
    hub_owner: Owner, device: Any, hub_service: Service, group: str
) -> None:
    hub_owner.enroll_group(group, references("Plant-1"))
    name, root, path = new_id(), issue("Plant", ca=True), "/_emulator/certificates/plant-1"
    own = issue(name, by=root)
    assert device(name, own).refused() == 401002
    for verified in (False, True):
        body = {"properties": {"certificate": pem(root), "isVerified": verified}}
        assert hub_service.request("PUT", path, json=body).ok
        final = device(name, own).register()
        assert final["status"] == ("assigned" if verified else "failed")
        state = final["registrationState"]
        if not verified:  # with every device of the CA, and with no other one
            assert (state["errorCode"], state["errorMessage"]) == (401002, "Invalid certificate")
            assert hub_owner.call("GET", f"/registrations/{name}")["errorCode"] == 401002
            assert hub_service.request("GET", f"/devices/{name}").status_code == 404
            other = new_id()
            assert device(other, issue(other, by=OTHER_ROOT)).refused() == 401002
    assert hub_service.request("DELETE", path).ok
    assert device(name, own).refused() == 401002


def test_what_no_ca_signed_is_refused(hub_owner: Owner, device: Any, group: str) -> None:
    hub_owner.enroll_group(group, signing(INTERMEDIATE))
    name = new_id()
    impostor = issue("Intermediate", ca=True)
    old = issue("Old", by=INTERMEDIATE, ca=True, end=-timedelta(seconds=60))
    for own in (
        issue(name),
        issue(name, by=ROOT),
        issue(name, by=OTHER_ROOT),
        issue(name, by=impostor, chain=(impostor, INTERMEDIATE)),
        issue(name, by=old, chain=(old,)),
        issue(name, by=INTERMEDIATE, start=-2 * DAY, end=-DAY),
    ):
        assert device(name, own).refused() == 401002
    assert device("another", issue(name, by=INTERMEDIATE)).refused() == 401002


def is_trusted(chain: list[bytes], anchors: list[bytes], now: datetime) -> bool:
    """Return whether a chain leads to a trusted certificate."""
    return Chain(chain, now).leads_to(anchors)


def test_what_a_chain_proves() -> None:
    now = datetime.now(UTC)
    no_ca = issue("No CA", by=INTERMEDIATE, ca=False)
    plain = issue("Plain", by=INTERMEDIATE)
    by_no_ca, by_plain = issue("leaf", by=no_ca), issue("leaf", by=plain)
    direct = issue("leaf", by=INTERMEDIATE)
    for chain, anchors, proves in (
        ([direct], [INTERMEDIATE], True),
        ([direct, INTERMEDIATE], [ROOT], True),
        ([direct], [ROOT], False),
        ([direct, INTERMEDIATE], [OTHER_ROOT], False),
        ([direct], [], False),
        # A certificate that is not a CA's signs nothing, and an anchor does not trust itself.
        ([by_no_ca, no_ca], [INTERMEDIATE], False),
        ([by_plain, plain], [INTERMEDIATE], False),
        ([by_plain], [plain], False),
        ([direct], [direct], False),
    ):
        der = [each.der for each in chain], [each.der for each in anchors]
        assert is_trusted(*der, now) is proves
        assert not is_trusted(*der, now + 40 * DAY)
        assert not is_trusted(*der, now - 40 * DAY)
    assert not is_trusted([b"nonsense"], [ROOT.der], now)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[x509.Certificate]:
    """The certificates by which signatures were checked."""
    found: list[x509.Certificate] = []

    def is_signed(_: x509.Certificate, by: x509.Certificate, depth: int) -> bool:
        found.append(by)
        return bool(by.public_bytes(Encoding.DER) != OTHER_ROOT.der)

    monkeypatch.setattr("emulator.dps.certificates._is_signed", is_signed)
    return found


def test_each_certificate_of_a_chain_is_looked_at_once(looked_at: list[x509.Certificate]) -> None:
    # CAs that sign each other: so many paths lead through them.
    others = [issue("Other root", by=OTHER_ROOT, ca=True) for _ in range(30)]
    chain = [issue("leaf", by=OTHER_ROOT), *others]
    assert not is_trusted([each.der for each in chain], [OTHER_ROOT.der], datetime.now(UTC))
    assert len(looked_at) <= 200


def test_a_chain_is_followed_once_for_all_groups(looked_at: list[x509.Certificate]) -> None:
    chain = Chain([issue("leaf", by=INTERMEDIATE).der, INTERMEDIATE.der], datetime.now(UTC))
    for number in range(30):
        assert not chain.leads_to([issue(f"Group {number}", ca=True).der])
    assert chain.leads_to([ROOT.der])
    assert len(looked_at) == 2


def test_a_disabled_group_ends_disabled(hub_owner: Owner, device: Any, group: str) -> None:
    hub_owner.enroll_group(group, signing(INTERMEDIATE), provisioningStatus="disabled")
    name = new_id()
    assert device(name, issue(name, by=INTERMEDIATE)).register()["status"] == "disabled"


def test_a_new_certificate_updates_the_identity(
    hub_owner: Owner, device: Any, hub_service: Service, group: str
) -> None:
    hub_owner.enroll_group(group, signing(INTERMEDIATE))
    name = new_id()
    for _ in range(2):
        own = issue(name, by=INTERMEDIATE)
        device(name, own).register()
        authentication = hub_service.request("GET", f"/devices/{name}").json()["authentication"]
        assert authentication["x509Thumbprint"]["primaryThumbprint"] == own.sha256.upper()


# --- certificates that the service issues


Key = TypeVar("Key", ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, dsa.DSAPrivateKey)


def signed_request(name: str, key: Key) -> str:
    """Return a request for a certificate of a key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(csr.public_bytes(Encoding.DER)).decode()


def request_for(name: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Return a request for a certificate, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return signed_request(name, key), key


def test_a_device_gets_a_certificate_by_which_it_connects(
    hub: Emulator, hub_owner: Owner, hub_service: Service, folder: Path
) -> None:
    name = new_id()
    hub_owner.enroll(name)
    csr, key = request_for(name)
    state = Registrant(hub, name).register(csr=csr)["registrationState"]
    leaf, root = (
        x509.load_der_x509_certificate(base64.b64decode(each))
        for each in state["issuedCertificateChain"]
    )
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    authentication = hub_service.request("GET", f"/devices/{name}").json()["authentication"]
    assert authentication["type"] == "selfSigned"
    own = Credential(leaf, key).client_file(folder)
    answer = requests.post(
        f"https://{hub.https_host}/devices/{name}/messages/events?api-version=2021-04-12",
        data=b"hello",
        cert=str(own),
        verify=str(hub.ca_file),
        timeout=60,
    )
    assert answer.status_code == 204
    assert "issuedCertificateChain" not in hub_owner.call("GET", f"/registrations/{name}")


def test_an_invalid_request_for_a_certificate_is_refused(hub: Emulator, hub_owner: Owner) -> None:
    name = new_id()
    hub_owner.enroll(name)
    valid = request_for(name)[0]
    *others, last = base64.b64decode(valid)
    broken = base64.b64encode(bytes([*others, last ^ 1])).decode()
    for csr in (request_for("another")[0], broken, "nonsense", "bm9uc2Vuc2U=", 7):
        assert Registrant(hub, name).refused(csr=csr) == 400004


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (partial(rsa.generate_private_key, 65537, 1024), "csr has an RSA key of 1024 bits"),
        (partial(ec.generate_private_key, ec.SECP256K1()), "csr has a key of another kind"),
        (partial(dsa.generate_private_key, 1024), "csr has a key of another kind"),
    ],
)
def test_a_key_that_tls_refuses_gets_no_certificate(
    hub: Emulator, hub_owner: Owner, make: Callable[[], Any], text: str
) -> None:
    name = new_id()
    hub_owner.enroll(name)
    answer = Registrant(hub, name).begin(csr=signed_request(name, make()))
    assert (answer.status_code, answer.json()["errorCode"]) == (400, 400004)
    assert text in answer.json()["message"]


def test_a_resumed_session_keeps_the_certificate(
    hub: Emulator, hub_owner: Owner, folder: Path
) -> None:
    name = new_id()
    own = issue(name)
    hub_owner.enroll(name, client(own))
    context = ssl.create_default_context(cafile=hub.ca_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(own.client_file(folder))
    session = None
    for resumed in (False, True):
        raw = _dial(hub, context, session)
        assert raw.session_reused is resumed
        session = raw.session
        path = f"/0ne00010CA1/registrations/{name}/register?api-version=2021-10-01"
        raw.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 202")
        raw.close()


def _dial(hub: Emulator, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    plain = socket.create_connection((hub.host_name, hub.https_port), timeout=60)
    return context.wrap_socket(plain, server_hostname=hub.host_name, session=session)
