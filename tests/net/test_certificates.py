from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from multiprocessing.synchronize import Barrier
from pathlib import Path

import certifi
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from emulator.net import authority, certificates
from emulator.net.authority import Authority
from emulator.net.certificates import (
    CertificateError,
    Certificates,
    local_names,
    machine_names,
    prepare,
)
from tests.support import small_files
from tests.x509 import issue

NOW = datetime.now(UTC)
NAMES = ("localhost", "127.0.0.1", "::1")
ROOT = Path(certificates.__file__).parents[2]

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes or limits")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "certificates"


@pytest.fixture(autouse=True)
def quick_rsa_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take RSA keys in turn from a few, because each takes 30 to 250 ms."""
    monkeypatch.setattr(authority, "new_rsa_key", lambda: next(RSA_KEYS))


RSA_KEYS = itertools.cycle([rsa.generate_private_key(65537, 2048) for _ in range(7)])


# --- Clients and the server -----------------------------------------------------------------------


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextlib.contextmanager
def serving(prepared: Certificates) -> Iterator[int]:
    """Answer HTTPS on a free port of 127.0.0.1; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        context = prepared.server_context()
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def connect(port: int, name: str, context: ssl.SSLContext) -> str | None:
    """Get an answer as a client that dialled `name`; return the TLS version."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        version = tls.version()
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with tls.makefile("rb") as answer:
            assert answer.read().endswith(b"\r\n\r\nok")
        return version


def strict_client(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    return context


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "127.0.0.1", "::1", "hub.example"])
def test_a_strict_client_trusts_the_server_under_each_of_its_names(folder: Path, name: str) -> None:
    prepared = prepare(folder, [*NAMES, "hub.example"])
    with serving(prepared) as port:
        assert connect(port, name, strict_client(prepared.ca)) == "TLSv1.3"


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA256"])
def test_a_client_that_knows_rsa_alone_trusts_the_server(folder: Path, cipher: str) -> None:
    prepared = prepare(folder, NAMES)
    client = strict_client(prepared.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"ECDHE-RSA-{cipher}")
    with serving(prepared) as port:
        assert connect(port, "localhost", client) == "TLSv1.2"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("algorithms", "shown"),
    [
        # No signature of another kind, neither in the handshake nor in a certificate
        ("RSA-PSS+SHA256:RSA+SHA256", "RSA"),
        ("ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256", "ECDSA"),
        ("RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA256", "ECDSA"),
    ],
)
def test_a_client_is_shown_the_certificate_that_it_knows(
    folder: Path, version: str, algorithms: str, shown: str
) -> None:
    prepared = prepare(folder, NAMES)
    with serving(prepared) as port:
        command = ["openssl", "s_client", version, "-sigalgs", algorithms, "-verify_return_error"]
        command += ["-verify_hostname", "localhost", "-CAfile", str(prepared.ca)]
        run = subprocess.run(
            [*command, "-connect", f"127.0.0.1:{port}"],
            input=b"GET / HTTP/1.0\r\n\r\n",
            capture_output=True,
            timeout=30,
            check=False,
        )
    output = run.stdout.decode()
    assert "Verify return code: 0 (ok)" in output
    assert f"Peer signature type: {shown}" in output


@pytest.mark.parametrize("name", ["hub.example", "sub.localhost", "127.0.0.2"])
def test_a_client_refuses_a_name_that_the_certificate_lacks(folder: Path, name: str) -> None:
    prepared = prepare(folder, NAMES)
    with (
        serving(prepared) as port,
        pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"),
    ):
        connect(port, name, strict_client(prepared.ca))


def test_a_client_without_our_ca_refuses_the_server(folder: Path) -> None:
    with (
        serving(prepare(folder, NAMES)) as port,
        pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"),
    ):
        connect(port, "localhost", strict_client(Path(certifi.where())))


def test_the_device_sdks_context_trusts_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(folder, NAMES)
    monkeypatch.setenv("SSL_CERT_FILE", str(prepared.bundle))
    with pytest.warns(DeprecationWarning, match="PROTOCOL_TLSv1_2"):
        # azure-iot-device, mqtt_transport.py
        context = ssl.SSLContext(protocol=ssl.PROTOCOL_TLSv1_2)
    context.load_default_certs()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    with serving(prepared) as port:
        assert connect(port, "localhost", context) == "TLSv1.2"


def test_requests_trusts_the_server_as_the_service_sdk_uses_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(folder, NAMES)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(prepared.bundle))
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    with serving(prepared) as port:
        assert requests.get(f"https://localhost:{port}/", timeout=10).text == "ok"
        assert requests.get(f"https://127.0.0.1:{port}/", timeout=10).text == "ok"


@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="this OpenSSL can't speak TLS 1.1")
def test_the_server_refuses_tls_1_1(folder: Path) -> None:
    prepared = prepare(folder, NAMES)
    context = strict_client(prepared.ca)
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # OpenSSL offers TLS 1.1 at this level only
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    # The alert is the server's: the client did offer TLS 1.1.
    with serving(prepared) as port, pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        connect(port, "localhost", context)


# --- What the files hold --------------------------------------------------------------------------


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(prepared: Certificates) -> list[str]:
    """Return the names of the server's certificates, which are the same in both."""
    found = []
    for file in (prepared.server, prepared.server_rsa):
        extensions = certificate(file).extensions
        listed = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found.append([str(name.value) for name in listed])
    assert found[0] == found[1]
    return found[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_ca_certificate_may_sign_server_certificates_and_no_other_ca(folder: Path) -> None:
    ca = certificate(prepare(folder, NAMES, now=NOW).ca)
    assert ca.subject == ca.issuer
    assert "local-iot-hub CA" in ca.subject.rfc4514_string()
    assert "development only" in ca.subject.rfc4514_string()
    assert isinstance(ca.public_key(), rsa.RSAPublicKey)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert ca.not_valid_after_utc - NOW > timedelta(days=3649)


@pytest.mark.parametrize(
    ("file", "kind"),
    [("server", ec.EllipticCurvePublicKey), ("server_rsa", rsa.RSAPublicKey)],
)
def test_a_server_certificate_is_for_servers_only(folder: Path, file: str, kind: type) -> None:
    prepared = prepare(folder, NAMES, now=NOW)
    ca, server = certificate(prepared.ca), certificate(getattr(prepared, file))
    assert isinstance(server.public_key(), kind)
    server.verify_directly_issued_by(ca)
    extensions = server.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert [*extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    subject_key = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority_key = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority_key.key_identifier == subject_key.key_identifier
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert server.not_valid_before_utc < NOW - timedelta(hours=23)
    assert timedelta(days=364) < server.not_valid_after_utc - NOW
    # What Apple and Chromium still accept.
    assert server.not_valid_after_utc - server.not_valid_before_utc < timedelta(days=398)


@pytest.mark.parametrize("machine", ["", "büro", "b\udcfcro", "a" * 253])
def test_a_machine_of_any_name_can_have_a_ca(machine: str) -> None:
    made = Authority.create(machine, (), NOW)
    assert Authority.from_pem(made.to_pem()).certificate == made.certificate


@posix_only
def test_only_the_owner_can_read_folder_and_keys(folder: Path) -> None:
    umask = os.umask(0)
    try:
        prepare(folder, NAMES)
    finally:
        os.umask(umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes == {
        "ca-key.pem": 0o600,
        "server.pem": 0o600,
        "server-rsa.pem": 0o600,
        ".lock": 0o600,
        "ca.pem": 0o644,
        "ca-bundle.pem": 0o644,
    }
    for path in folder.glob("ca*.pem"):
        assert (b"PRIVATE KEY" in path.read_bytes()) == (path.name == "ca-key.pem")


# --- What stays, and what is made again -----------------------------------------------------------


def test_a_second_start_changes_nothing(folder: Path) -> None:
    first = prepare(folder, NAMES)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare(folder, NAMES[::-1]) == first
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_second_start_does_not_import_cryptography(folder: Path) -> None:
    program = (
        "import sys, pathlib, emulator.net.certificates as c\n"
        f"c.prepare(pathlib.Path({str(folder)!r}), {NAMES!r}).server_context()\n"
        "print('cryptography' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    runs = [subprocess.check_output(command, cwd=ROOT, text=True).strip() for _ in range(2)]
    assert runs == ["True", "False"]


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = prepare(Path("here"), NAMES)
    assert prepared.server == tmp_path / "here" / "server.pem"


@pytest.mark.parametrize(("days", "again"), [(334, False), (336, True), (400, True), (-2, True)])
def test_a_server_certificate_with_less_than_30_days_left_is_made_again(
    folder: Path, days: int, again: bool
) -> None:
    # 2 days before it was made, it is not valid yet; neither is the CA.
    first = prepare(folder, NAMES, now=NOW)
    old = certificate(first.server)
    new = certificate(prepare(folder, NAMES, now=NOW + timedelta(days=days)).server)
    assert (new != old) == again
    if again:
        assert new.not_valid_after_utc - old.not_valid_after_utc == timedelta(days=days)
        new.verify_directly_issued_by(certificate(first.ca))


def test_a_missing_name_is_added_to_those_that_the_certificate_has(folder: Path) -> None:
    prepare(folder, ["localhost", "127.0.0.2"])
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.pem")}
    prepared = prepare(folder, ["127.0.0.3", "localhost"])
    assert names(prepared) == ["127.0.0.3", "localhost", "127.0.0.2"]
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {prepared.server, prepared.server_rsa}
    server = prepared.server.read_bytes()
    prepare(folder, ["localhost", "127.0.0.2"])
    assert prepared.server.read_bytes() == server


def test_names_survive_the_end_of_the_certificate(folder: Path) -> None:
    prepare(folder, ["127.0.0.2"], now=NOW - timedelta(days=500))
    late = prepare(folder, ["127.0.0.3"])
    assert names(late) == ["127.0.0.3", "127.0.0.2"]


def test_the_names_of_containers_long_gone_drop_out(folder: Path) -> None:
    containers = [f"container-{number}" for number in range(certificates.MAX_NAMES)]
    prepare(folder, containers)
    prepared = prepare(folder, ["localhost", "newest"])
    assert names(prepared) == ["localhost", "newest", *containers[:-2]]
    everything = [f"wanted-{number}" for number in range(certificates.MAX_NAMES + 1)]
    assert names(prepare(folder, everything)) == everything


def test_a_ca_near_its_end_is_made_again_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = certificate(prepare(folder, NAMES, now=NOW).ca)
    late = prepare(folder, NAMES, now=NOW + timedelta(days=3610))
    assert certificate(late.ca) == old
    # A server certificate can't outlive the CA that signed it.
    assert certificate(late.server).not_valid_after_utc == old.not_valid_after_utc
    assert not caplog.records

    later = prepare(folder, NAMES, now=NOW + timedelta(days=3625))
    assert certificate(later.ca) != old
    certificate(later.server).verify_directly_issued_by(certificate(later.ca))
    assert later.ca.read_bytes() in later.bundle.read_bytes()
    assert "The local CA was made again" in caplog.text
    assert str(later.bundle) in caplog.text


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "missing"])
@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("ca.pem", set()),  # ca-key.pem holds it as well
        ("ca-bundle.pem", set()),
        ("server.pem", {"server.pem"}),
        ("server-rsa.pem", {"server-rsa.pem"}),
    ],
)
def test_a_damaged_file_is_made_again_and_the_ca_stays(
    folder: Path, file: str, changed: set[str], damage: str
) -> None:
    prepared = prepare(folder, NAMES)
    before = contents(folder)
    hurt(folder / file, damage)
    assert prepare(folder, NAMES) == prepared
    after = contents(folder)
    assert {name for name in after if after[name] != before[name]} == changed
    with serving(prepared) as port:
        assert connect(port, "localhost", strict_client(prepared.bundle))


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "missing", "another key"])
def test_a_damaged_ca_key_is_noticed_when_it_is_needed(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = prepare(folder, NAMES).ca.read_bytes()
    hurt(folder / "ca-key.pem", damage)
    (folder / "ca-bundle.pem").unlink()  # a new bundle needs no key
    assert prepare(folder, NAMES).ca.read_bytes() == before
    assert not caplog.records

    prepared = prepare(folder, ["hub.example", "localhost"])
    assert prepared.ca.read_bytes() != before
    assert "The local CA was made again" in caplog.text
    with serving(prepared) as port:
        assert connect(port, "hub.example", strict_client(prepared.bundle))


def hurt(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "another key":
        key, _, _ = content.partition(b"-----BEGIN CERTIFICATE-----")
        other = prepare(path.parent / "other", NAMES).server.read_bytes()
        path.write_bytes(other[other.index(b"-----BEGIN PRIVATE KEY-----") :] + content[len(key) :])
    else:
        hurts = {"empty": b"", "cut": content[: len(content) // 2], "garbage": b"\xff\x00" * 400}
        path.write_bytes(hurts[damage])


def test_a_server_certificate_of_another_ca_is_made_again(folder: Path, tmp_path: Path) -> None:
    prepared = prepare(folder, NAMES)
    other = prepare(tmp_path / "other", NAMES).server.read_bytes()
    prepared.server.write_bytes(other)
    prepare(folder, NAMES)
    certificate(prepared.server).verify_directly_issued_by(certificate(prepared.ca))


def test_the_rsa_key_of_the_server_is_made_once(folder: Path) -> None:
    key = certificate(prepare(folder, NAMES, now=NOW).server_rsa).public_key()
    for names, days in (([*NAMES, "127.0.0.2"], 0), (NAMES, 400), ([*NAMES, "hub.example"], 400)):
        prepared = prepare(folder, names, now=NOW + timedelta(days=days))
        assert certificate(prepared.server_rsa).public_key() == key


@pytest.mark.parametrize("bits", [1024, 4096])
def test_an_rsa_key_that_is_too_short_is_made_again(folder: Path, bits: int) -> None:
    prepared = prepare(folder, NAMES)
    key = rsa.generate_private_key(65537, bits)
    ca = Authority.from_pem((folder / "ca-key.pem").read_bytes())
    prepared.server_rsa.write_bytes(ca.issue(["127.0.0.9"], NOW, key))
    now = certificate(prepare(folder, NAMES).server_rsa).public_key()
    assert isinstance(now, rsa.RSAPublicKey)
    assert now.key_size == max(2048, bits)


def test_a_file_that_a_killed_process_left_is_in_nobodys_way(folder: Path) -> None:
    folder.mkdir()
    (folder / "ca-key.pem.new").write_bytes(b"-----BEGIN")
    prepare(folder, NAMES)
    assert not [*folder.glob("*.new")]


# --- What the CA can sign for ---------------------------------------------------------------------


def permitted(ca: Path) -> set[str]:
    constraints = certificate(ca).extensions.get_extension_for_class(x509.NameConstraints)
    assert not constraints.critical  # mbedTLS would refuse the CA
    assert constraints.value.excluded_subtrees is None
    return {str(each.value) for each in constraints.value.permitted_subtrees or ()}


def test_a_ca_can_sign_for_loopback_and_for_the_names_that_it_is_made_for(folder: Path) -> None:
    loopback = {"localhost", "127.0.0.0/8", "::1/128"}
    assert permitted(prepare(folder, NAMES).ca) >= loopback
    names = ["hub", "10.1.2.3", "fe80::1", "hub.example"]
    prepared = prepare(folder, names, extra=["machine"])
    added = {"hub", "10.1.2.3/32", "fe80::1/128", "hub.example", "machine"}
    assert permitted(prepared.ca) >= loopback | added


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("hub.example", True),
        ("10.1.2.3", True),
        ("google.com", False),
        ("hub.example.com", False),
        ("example", False),
        ("xlocalhost", False),
        ("10.1.2.4", False),
        ("128.0.0.1", False),
        ("::2", False),
    ],
)
def test_a_client_trusts_the_ca_for_no_other_name(
    folder: Path, tmp_path: Path, name: str, trusted: bool
) -> None:
    prepared = prepare(folder, [*NAMES, "hub.example", "10.1.2.3"])
    ca = Authority.from_pem((folder / "ca-key.pem").read_bytes())
    assert ca.permits(name) == trusted
    for file in (prepared.server, prepared.server_rsa):
        file.write_bytes(ca.issue([name], NOW))  # as a thief of the key could do
    with serving(prepared) as port:
        if trusted:
            connect(port, name, strict_client(prepared.ca))
            return
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
            connect(port, name, strict_client(prepared.ca))


@pytest.mark.parametrize("name", ["hub", "10.1.2.3", "fe80::1", "other.example"])
def test_a_name_outside_makes_a_new_ca_and_says_what_to_restart(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = prepare(folder, [*NAMES, "hub.example"]).ca.read_bytes()
    assert not caplog.records
    prepared = prepare(folder, [*NAMES, name])
    assert prepared.ca.read_bytes() != before
    [record] = caplog.records
    text = record.getMessage()
    assert f"it cannot sign for {name}." in text
    for part in (prepared.bundle, prepared.ca, folder, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        assert str(part) in text
    assert "NODE_EXTRA_CA_CERTS" in text
    with serving(prepared) as port:
        for each in (name, "localhost", "hub.example"):  # old names stay
            connect(port, each, strict_client(prepared.bundle))
    # From now on the CA stays.
    ca = prepared.ca.read_bytes()
    for names in ([*NAMES, "hub.example"], [name], [*NAMES, "127.0.0.77"]):
        assert prepare(folder, names).ca.read_bytes() == ca


def test_a_name_of_the_machine_alone_makes_no_new_ca(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A laptop takes another name from each network that it joins.
    ca = prepare(folder, NAMES, extra=["anns-mac", "anns-mac.office.example"]).ca.read_bytes()
    for extra in (["anns-mac", "anns-mac.home.example"], [], ["10.0.0.7"]):
        prepared = prepare(folder, NAMES, extra=extra)
        assert prepared.ca.read_bytes() == ca
    prepared = prepare(folder, [*NAMES, "127.0.0.2"], extra=["elsewhere", "new.anns-mac"])
    assert prepared.ca.read_bytes() == ca
    assert {"127.0.0.2", "anns-mac", "anns-mac.office.example", "new.anns-mac"} < {*names(prepared)}
    assert "elsewhere" not in names(prepared)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["elliptic curve", "without constraints"])
def test_the_ca_of_an_earlier_version_is_made_again(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    ca = issue("local-iot-hub CA, development only", ca=True)
    pem = ca.client_file(folder).read_bytes()
    if kind == "without constraints":
        key = rsa.generate_private_key(65537, 2048)
        subject, end = ca.certificate.subject, NOW + timedelta(days=3650)
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, NOW, end)
        pem = Authority(builder.sign(key, hashes.SHA256()), key).to_pem()
    (folder / "ca-key.pem").write_bytes(pem)
    (folder / "ca-key.pem").chmod(0o600)
    (folder / "ca.pem").write_bytes(pem[pem.index(b"-----BEGIN CERT") :])
    prepared = prepare(folder, NAMES)
    assert "localhost" in permitted(prepared.ca)
    assert "The local CA was made again" in caplog.text
    assert str(prepared.bundle) in caplog.text


# --- Private keys that others can read ------------------------------------------------------------

KEY_FILES = ("ca-key.pem", "server.pem", "server-rsa.pem")


@posix_only
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o777])
@pytest.mark.parametrize("name", KEY_FILES)
def test_a_key_that_others_can_read_becomes_private_with_a_warning(
    folder: Path, name: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(folder, NAMES)
    (folder / name).chmod(mode)
    before = contents(folder)
    prepare(folder, NAMES)
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert contents(folder) == before
    [record] = caplog.records
    assert str(folder / name) in record.getMessage()
    caplog.clear()
    prepare(folder, NAMES)
    assert not caplog.records


@posix_only
@pytest.mark.parametrize("name", KEY_FILES)
def test_a_key_that_stays_readable_for_others_is_refused(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(folder, NAMES)
    (folder / name).chmod(0o644)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # a file system without modes
    with pytest.raises(CertificateError) as raised:
        prepare(folder, NAMES)
    assert str(raised.value) == (
        f"Can't keep certificates in {folder}: other users can read the private key in {name}. "
        "Choose another folder: --cert-dir DIR."
    )


# --- The bundle -----------------------------------------------------------------------------------


def roots(path: Path) -> set[bytes]:
    """Return what OpenSSL trusts when it is given this file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return {*context.get_ca_certs(binary_form=True)}


def test_the_bundle_holds_the_public_roots_and_our_ca(folder: Path) -> None:
    prepared = prepare(folder, NAMES)
    assert roots(prepared.bundle) >= roots(prepared.ca) | roots(Path(certifi.where()))
    # ssl's `cadata` takes ASCII text only; azure-iot-device passes it server_verification_cert.
    assert prepared.bundle.read_bytes().isascii()


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's bundle, with the CA of a company's proxy as an administrator may write it."""
    ca = prepare(tmp_path / "company", NAMES).ca
    file = tmp_path / "system.pem"
    file.write_bytes("# Größe\r\n".encode() + ca.read_bytes().replace(b"\n", b"\r\n"))
    paths = ssl.get_default_verify_paths()._replace(openssl_cafile=str(file))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    return file


def test_the_bundle_holds_what_the_system_trusts(folder: Path, system: Path) -> None:
    prepared = prepare(folder, NAMES)
    assert roots(prepared.bundle) >= roots(prepared.ca) | roots(system)
    assert prepared.bundle.read_bytes().isascii()
    system.unlink()
    prepared = prepare(folder, NAMES)
    assert roots(prepared.bundle) == roots(prepared.ca) | roots(Path(certifi.where()))


def test_a_system_bundle_that_cannot_be_read_is_left_out_with_a_warning(
    folder: Path, system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system.unlink()
    system.mkdir()
    prepared = prepare(folder, NAMES)
    assert f"The certificates in {system} are left out" in caplog.text
    assert roots(prepared.bundle) == roots(prepared.ca) | roots(Path(certifi.where()))


def test_the_bundle_does_not_depend_on_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = prepare(folder, NAMES).bundle.read_bytes()
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(folder / "ca-bundle.pem"))
    assert prepare(folder, NAMES).bundle.read_bytes() == content


# --- Several emulators at once --------------------------------------------------------------------

EMULATORS = 4
ROUNDS = 6
together: Barrier


def meet(barrier: Barrier) -> None:
    global together
    together = barrier


def start_together(base: Path, number: int) -> list[bytes]:
    """Start on one empty folder after another, with a name of our own; return the CAs we saw."""
    seen = []
    for turn in range(ROUNDS):
        together.wait(timeout=60)
        prepared = prepare(base / str(turn), [*NAMES, f"127.0.0.{number + 2}"])
        seen.append(prepared.ca.read_bytes())
        prepared.server_context()
    return seen


def test_emulators_that_start_at_the_same_moment_share_one_ca(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(EMULATORS, spawn, meet, (spawn.Barrier(EMULATORS),)) as pool:
        seen = [*pool.map(start_together, [tmp_path] * EMULATORS, range(EMULATORS))]
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        ca = (folder / "ca.pem").read_bytes()
        assert [each[turn] for each in seen] == [ca] * EMULATORS
        assert ca in (folder / "ca-bundle.pem").read_bytes()
        assert ca in (folder / "ca-key.pem").read_bytes()
        prepared = prepare(folder, NAMES)
        certificate(prepared.server).verify_directly_issued_by(certificate(prepared.ca))
        assert {*names(prepared)} == {*NAMES, *(f"127.0.0.{n + 2}" for n in range(EMULATORS))}


@posix_only
def test_a_locked_folder_is_waited_for_and_then_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    folder.mkdir()
    with (folder / ".lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)  # a lock is the open file's: as in another process
        monkeypatch.setattr(certificates, "LOCK_WAIT", timedelta(seconds=0.2))
        with pytest.raises(CertificateError, match=r"Another process.*--cert-dir") as caught:
            prepare(folder, NAMES)
        assert str(folder) in str(caught.value)
    prepare(folder, NAMES)  # the lock ended with its holder


# --- Folders that can't be used -------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    folder = file / below
    with pytest.raises(CertificateError) as caught:
        prepare(folder, NAMES)
    text = str(caught.value)
    assert text.startswith(f"Can't keep certificates in {folder}: ")
    assert "File exists" in text or "Not a directory" in text or "cannot find" in text
    assert text.endswith(". Choose another folder: --cert-dir DIR.")
    assert "\n" not in text


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_serves_until_something_must_be_made(folder: Path) -> None:
    prepared = prepare(folder, NAMES)
    folder.chmod(0o500)
    try:
        assert prepare(folder, NAMES) == prepared
        with pytest.raises(CertificateError, match=r"Permission denied\. Choose another folder"):
            prepare(folder, ["hub.example"])
    finally:
        folder.chmod(0o700)


@posix_only
def test_a_write_that_breaks_off_leaves_no_half_file(folder: Path) -> None:
    # The CA's and the server's files stay below the limit, the bundle does not.
    with small_files(), pytest.raises(CertificateError) as caught:
        prepare(folder, NAMES)
    assert str(caught.value) == (
        f"Can't keep certificates in {folder}: File too large. "
        "Choose another folder: --cert-dir DIR."
    )
    ca = (folder / "ca.pem").read_bytes()
    assert {*contents(folder)} == {
        *(".lock", "ca-key.pem", "ca.pem", "server.pem", "server-rsa.pem")
    }
    assert prepare(folder, NAMES).ca.read_bytes() == ca


def test_files_that_are_gone_are_named(folder: Path) -> None:
    prepared = prepare(folder, NAMES)
    prepared.server.unlink()
    with pytest.raises(CertificateError, match="No such file"):
        prepared.server_context()


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("LOCALHOST", "localhost"),
        ("hub.example.", "hub.example"),
        ("iot_hub", "iot_hub"),
        ("123456789012", "123456789012"),  # a container's id
        ("müller.example", "xn--mller-kva.example"),
        ("127.0.0.2", "127.0.0.2"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("FE80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]", "fe80::1"),
    ],
)
def test_a_name_is_held_in_one_spelling(folder: Path, name: str, held: str) -> None:
    prepared = prepare(folder, [name, held])
    assert names(prepared) == [held]
    before = contents(folder)
    prepare(folder, [name])
    assert contents(folder) == before


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "a..b", "-a", "a-", "a b", "a/b", "a\n", "a\x00b", "*.example", ":::"),
        *("https://localhost", "localhost:8443", "[localhost]", "[::1]:8443", "127.0.0.256"),
        *("a" * 64, ".".join(["a" * 60] * 5), "ü" * 70),
    ],
)
def test_what_is_no_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(CertificateError, match="use a host name or an IP address") as caught:
        prepare(folder, ["localhost", name])
    assert repr(name) in str(caught.value)
    assert not folder.exists()


def test_no_names_at_all_are_refused(folder: Path) -> None:
    with pytest.raises(CertificateError, match="at least one host name"):
        prepare(folder, [])


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "[::]", "localhost", "127.0.0.1", "[::1]"])
def test_every_emulator_answers_to_the_loopback(host: str) -> None:
    found = local_names(host)
    assert found[:3] == NAMES
    everywhere = host in ("", "0.0.0.0", "::", "[::]")
    machine = {socket.gethostname().lower(), socket.gethostname().partition(".")[0].lower()}
    assert {*found[3:]} <= (machine if everywhere else {*()})
    assert {*machine_names()} <= machine


def test_an_emulator_answers_to_the_names_that_it_is_given() -> None:
    assert local_names("0.0.0.0", ("Hub", "10.1.2.3")) == (*NAMES, "hub", "10.1.2.3")
    assert local_names("127.0.0.2", ("hub",)) == (*NAMES, "127.0.0.2", "hub")
    with pytest.raises(CertificateError, match="Invalid host 'a b'"):
        local_names("localhost", ("hub", "a b"))


def test_an_emulator_answers_to_the_host_that_it_listens_on() -> None:
    assert local_names("127.0.0.2")[-1] == "127.0.0.2"
    assert ip_address(local_names("[FE80::1%lo]")[-1]) == ip_address("fe80::1")
    with pytest.raises(CertificateError, match=r"Invalid host '127\.0\.0\.256'"):
        local_names("127.0.0.256")
