"""TLS handshakes with client certificates: which of them the hub sees, and how."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import Emulator, Settings, StartError
from emulator.hub.access.certificates import ClientCertificate
from emulator.net import client_authorities
from emulator.net.certificates import CertificateError, Certificates, prepare
from emulator.net.tls import Handshakes, _chain
from tests.clock import ManualClock
from tests.support import wait_until
from tests.x509 import DAY, Credential, issue

TLS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

CA = issue("Root", ca=True)
INTERMEDIATE = issue("Intermediate", by=CA, ca=True)
UNKNOWN_CA = issue("Unknown", ca=True)


@dataclass
class Meeting:
    """What the server saw of a connection."""

    certificate: ClientCertificate | None
    connection: Any
    session: ssl.SSLSession | None = None


@dataclass
class Server:
    """Accepts TLS in a thread of its own, and sends one byte to each client."""

    ca: Path
    folder: Path
    port: int
    meetings: queue.Queue[Meeting]
    registered: set[str]
    trusted: list[bytes]
    clock: ManualClock
    clients: dict[Any, ssl.SSLContext] = field(default_factory=dict)

    def meet(
        self, credential: Credential | None, version: str, session: ssl.SSLSession | None = None
    ) -> Meeting:
        """Connect as a client, and return what the server saw."""
        context = self._client_context(credential, version)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            assert tls.recv(1) == b"."
            meeting = self.meetings.get(timeout=10)
            meeting.session = tls.session
            return meeting

    def shown(self, credential: Credential, version: str) -> ClientCertificate:
        """Connect with a certificate, and return it as the hub sees it."""
        certificate = self.meet(credential, version).certificate
        assert certificate
        assert (certificate.sha1, certificate.sha256) == (credential.sha1, credential.sha256)
        return certificate

    def register(self, credential: Credential) -> None:
        self.registered.add(credential.sha256)

    def _client_context(self, credential: Credential | None, version: str) -> ssl.SSLContext:
        key = (credential and credential.sha256, version)
        if key not in self.clients:  # a session can be resumed in its own context only
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = context.maximum_version = TLS[version]
            if credential is not None:
                context.load_cert_chain(credential.client_file(self.folder))
            self.clients[key] = context
        return self.clients[key]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What the server shows."""
    return prepare(tmp_path_factory.mktemp("certificates"), ["localhost"])


def _loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    uvloop = pytest.importorskip("uvloop", reason="uvloop has no build here")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@pytest.fixture
def serve(certificates: Certificates, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that register the CAs in the files they are given."""
    stops: list[Callable[[], None]] = []

    def start(loop_kind: str, *authorities: Path) -> Server:
        loop = _loop(loop_kind)
        registered: set[str] = set()
        trusted = [der for _, der in client_authorities.read(authorities)]
        clock = ManualClock(datetime.now(UTC))
        handshakes = Handshakes(
            certificates,
            authorities=lambda: tuple(trusted),
            thumbprints=registered,
            clock=clock,
        )
        meetings: queue.Queue[Meeting] = queue.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("ssl_object")
            certificate = handshakes.client_certificate(connection)
            meetings.put(Meeting(certificate, connection))
            writer.write(b".")
            await reader.read()
            writer.close()

        listener = loop.run_until_complete(
            asyncio.start_server(accept, "127.0.0.1", 0, ssl=handshakes.context)
        )
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        async def end() -> None:
            listener.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if tasks:
                await asyncio.wait(tasks, timeout=5)

        def stop() -> None:
            asyncio.run_coroutine_threadsafe(end(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        stops.append(stop)
        port = listener.sockets[0].getsockname()[1]
        return Server(certificates.ca, tmp_path, port, meetings, registered, trusted, clock)

    yield start
    for stop in stops:
        stop()


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, serve: Callable[..., Server], tmp_path: Path) -> Server:
    """A server that registers one CA."""
    return serve(request.param, CA.certificate_file(tmp_path))


each_version = pytest.mark.parametrize("version", TLS)


@each_version
def test_a_client_needs_no_certificate(server: Server, version: str) -> None:
    assert server.meet(None, version).certificate is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        *(
            (verb + b" / HTTP/1.1\r\n", "HTTP without TLS arrived at a port for TLS: use https")
            for verb in (b"GET", b"PUT", b"POST", b"HEAD", b"PATCH", b"DELETE", b"OPTIONS")
        ),
        (b"\x10\x0c\x00\x04MQTT", "MQTT without TLS arrived at a port for TLS: use TLS"),
        (b"AMQP\x03\x01\x00\x00", "AMQP without TLS arrived at a port for TLS: use TLS"),
        (bytes(8), r"Bytes that are not TLS arrived at a port for TLS: b'\x00"),
    ],
)
def test_the_log_says_that_a_client_has_no_tls(
    server: Server, caplog: pytest.LogCaptureFixture, data: bytes, text: str
) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
        plain.sendall(data)
        wait_until(lambda: text in caplog.text)
    assert len(caplog.records) == 1


# --- certificates that an identity names

NAMED = {
    "self-signed": issue("device"),
    "able to sign others": issue("device", ca=True),
    "signed by an unknown CA": issue("device", by=UNKNOWN_CA, ca=False),
    "with its chain": issue("device", by=UNKNOWN_CA, ca=False, chain=(UNKNOWN_CA,)),
    "longer than a record": issue("device", comment=bytes(20_000)),
}


@each_version
@pytest.mark.parametrize("kind", NAMED)
def test_a_named_certificate_passes_whoever_signed_it(
    server: Server, version: str, kind: str
) -> None:
    credential = NAMED[kind]
    server.register(credential)
    assert server.meet(credential, version).certificate == ClientCertificate(
        credential.sha1, credential.sha256, "device", by_authority=False
    )


@each_version
def test_a_certificate_may_be_named_by_its_sha1_thumbprint(server: Server, version: str) -> None:
    credential = issue("device")
    server.registered.add(credential.sha1)
    assert server.meet(credential, version).certificate


@each_version
def test_named_certificates_may_share_a_subject(server: Server, version: str) -> None:
    credentials = [issue("device") for _ in range(3)]
    for credential in credentials:
        server.register(credential)
    for credential in credentials * 2:
        certificate = server.meet(credential, version).certificate
        assert certificate
        assert certificate.sha256 == credential.sha256


@each_version
def test_a_certificate_that_is_no_longer_named_still_passes_the_handshake(
    server: Server, version: str
) -> None:
    credential = issue("device")
    server.register(credential)
    assert server.shown(credential, version)
    server.registered.clear()
    assert not server.shown(credential, version).by_authority


# --- certificates that a CA signed


@each_version
@pytest.mark.parametrize(
    ("authority", "credential"),
    [
        (CA, issue("device", by=CA)),
        (CA, issue("device", by=INTERMEDIATE, ca=False, chain=(INTERMEDIATE,))),
        (INTERMEDIATE, issue("device", by=INTERMEDIATE, ca=False)),
        (INTERMEDIATE, issue("device", by=INTERMEDIATE, chain=(INTERMEDIATE, CA))),
    ],
    ids=["root", "root by an intermediate", "intermediate", "intermediate, root sent along"],
)
def test_a_certificate_of_a_registered_ca_passes(
    serve: Callable[..., Server],
    tmp_path: Path,
    version: str,
    authority: Credential,
    credential: Credential,
) -> None:
    server = serve("asyncio", authority.certificate_file(tmp_path))
    expected = ClientCertificate(credential.sha1, credential.sha256, "device", by_authority=True)
    assert server.meet(credential, version).certificate == expected
    server.register(issue("other"))
    assert server.meet(credential, version).certificate == expected


def test_several_cas_may_be_in_one_file_or_in_several(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    first, second, third = authorities = [issue(f"CA {number}", ca=True) for number in range(3)]
    files = [each.certificate_file(tmp_path) for each in authorities]
    files[0].write_bytes(files[0].read_bytes() + files.pop().read_bytes())
    server = serve("asyncio", *files)
    for authority in (first, second, third):
        certificate = server.meet(issue("device", by=authority), "1.2").certificate
        assert certificate
        assert certificate.by_authority


@pytest.mark.parametrize(
    ("names", "common_name"), [((), None), (("a", "b"), None), (("dévice/m",), "dévice/m")]
)
def test_a_subject_with_one_common_name_has_a_name(
    server: Server, names: tuple[str, ...], common_name: str | None
) -> None:
    certificate = server.meet(issue(*names, by=CA), "1.2").certificate
    assert certificate
    assert certificate.common_name == common_name


@each_version
def test_a_ca_is_registered_and_removed_while_the_server_runs(
    serve: Callable[..., Server], version: str
) -> None:
    server = serve("asyncio")
    credential = issue("device", by=INTERMEDIATE, ca=False, chain=(INTERMEDIATE,))
    other = issue("other", by=UNKNOWN_CA)
    assert not server.shown(credential, version).by_authority
    server.trusted[:] = [CA.der, UNKNOWN_CA.der]
    assert server.shown(credential, version).by_authority
    session = server.meet(other, version).session
    server.trusted[:] = [UNKNOWN_CA.der]
    assert not server.shown(credential, version).by_authority
    resumed = server.meet(other, version, session)
    assert resumed.certificate
    assert resumed.certificate.by_authority


@each_version
def test_a_session_that_resumes_needs_the_ca_of_its_first_handshake(
    serve: Callable[..., Server], version: str
) -> None:
    server = serve("asyncio")
    server.trusted[:] = [CA.der, UNKNOWN_CA.der]
    credential = issue("device", by=CA)
    first = server.meet(credential, version)
    server.trusted[:] = [UNKNOWN_CA.der]
    resumed = server.meet(credential, version, first.session)
    assert resumed.connection.session_reused
    assert resumed.certificate
    assert not resumed.certificate.by_authority
    server.trusted[:] = [CA.der]
    assert server.shown(credential, version).by_authority


# --- certificates that authenticate nothing: they pass the handshake, and the hub refuses them

OLD_INTERMEDIATE = issue("Old", by=CA, ca=True, end=-DAY / 2)

UNKNOWN = {
    "self-signed": issue("device"),
    "self-signed, able to sign": issue("device", ca=True),
    "of an unknown CA": issue("device", by=UNKNOWN_CA),
    "of an unknown CA, with its chain": issue("device", by=UNKNOWN_CA, chain=(UNKNOWN_CA,)),
    "of a CA with the same name": issue("device", by=issue("Root", ca=True)),
    "signed with a certificate that is not a CA's": issue(
        "device", by=issue("device", by=CA, ca=False)
    ),
    "with the chain of another": issue("device", chain=(INTERMEDIATE, CA)),
    "of an intermediate that is missing": issue("device", by=INTERMEDIATE),
    "of an intermediate that has expired": issue(
        "device", by=OLD_INTERMEDIATE, chain=(OLD_INTERMEDIATE,)
    ),
    "longer than a record": issue("device", comment=bytes(20_000)),
    "a CA of the same name itself": issue("Root", ca=True),
    "without a subject": issue(),
}


@each_version
@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_certificate_that_is_neither_named_nor_signed_passes_as_an_unknown_one(
    server: Server, version: str, kind: str
) -> None:
    assert not server.shown(UNKNOWN[kind], version).by_authority
    server.register(issue("device"))
    for _ in range(2):
        certificate = server.shown(UNKNOWN[kind], version)
        assert (certificate.by_authority, certificate.in_date) == (False, True)


@each_version
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_unknown_certificate_passes_where_no_ca_is_registered(
    serve: Callable[..., Server], version: str, loop: str
) -> None:
    server = serve(loop)
    for credential in (issue("device"), issue("device", by=CA, chain=(CA,)), issue("x", ca=True)):
        assert not server.shown(credential, version).by_authority


@each_version
@pytest.mark.parametrize("dates", [{"end": -DAY / 2}, {"start": DAY}])
@pytest.mark.parametrize("kind", ["unknown", "named", "CA-signed"])
def test_a_certificate_outside_its_dates_passes_as_one_that_is_not_valid(
    server: Server, version: str, kind: str, dates: dict[str, Any]
) -> None:
    credential = issue("device", by=CA if kind == "CA-signed" else None, **dates)
    if kind == "named":
        server.register(credential)
    certificate = server.shown(credential, version)
    assert (certificate.by_authority, certificate.in_date) == (False, False)


@each_version
def test_a_certificate_signed_with_a_named_one_is_unknown(server: Server, version: str) -> None:
    device, unknown = issue("device", ca=True), issue("unknown", ca=True)
    server.register(device)
    assert server.shown(device, version)  # from now on, it is a trust anchor
    server.shown(unknown, version)  # and this one is not
    for by in (device, unknown):
        for signed in (
            issue("other", by=by),
            issue("other", by=by, chain=(by,)),
            issue("device", by=by, chain=(by,)),
            issue("device", by=by, chain=(by, CA)),
        ):
            assert not server.shown(signed, version).by_authority


@each_version
def test_a_named_certificate_within_a_chain_does_not_count(server: Server, version: str) -> None:
    device, thief = issue("device", ca=True), issue("device")
    server.register(device)
    shown = Credential(thief.certificate, thief.key, (device.certificate,))
    assert not server.shown(shown, version).by_authority


@each_version
def test_a_signature_that_was_verified_before_does_not_count_without_its_chain(
    server: Server, version: str
) -> None:
    signed = issue("device", by=INTERMEDIATE, chain=(INTERMEDIATE,))
    alone = Credential(signed.certificate, signed.key)
    assert server.shown(signed, version).by_authority
    server.clients.clear()
    assert not server.shown(alone, version).by_authority


def test_an_unknown_certificate_is_logged_with_its_thumbprints(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emulator.net.tls")
    server.register(issue("other"))
    credential = issue("device")
    server.shown(credential, "1.2")
    assert credential.sha1 in caplog.text
    assert credential.sha256 in caplog.text


# --- resumed sessions: the client sends no certificate, and OpenSSL checks none


@each_version
@pytest.mark.parametrize("by", [None, CA], ids=["named", "CA-signed"])
def test_a_resumed_session_has_the_certificate_of_the_first(
    server: Server, version: str, by: Credential | None
) -> None:
    credential = issue("device", by=by, ca=by is None)
    if by is None:
        server.register(credential)
    first = server.meet(credential, version)
    server.meet(issue("other", by=CA), version)
    for others in ([], [issue("other").sha1]):  # identities may name no certificate meanwhile
        server.registered.clear()
        server.registered.update(others)
        resumed = server.meet(credential, version, first.session)
        assert resumed.connection.session_reused
        assert resumed.certificate == first.certificate
        assert resumed.certificate
        assert resumed.certificate.by_authority is (by is CA)


@each_version
@pytest.mark.parametrize("by", [None, CA], ids=["named", "CA-signed"])
def test_a_session_resumed_with_a_certificate_that_has_expired_since_is_not_valid(
    server: Server, version: str, by: Credential | None
) -> None:
    credential = issue("device", by=by)
    if by is None:
        server.register(credential)
    first = server.meet(credential, version)
    server.clock.advance((31 * DAY).total_seconds())
    resumed = server.meet(credential, version, first.session)
    assert resumed.connection.session_reused
    assert resumed.certificate
    assert not resumed.certificate.in_date


@each_version
def test_a_session_of_an_unknown_certificate_resumes(server: Server, version: str) -> None:
    credential = issue("device", ca=True)
    first = server.meet(credential, version)
    resumed = server.meet(credential, version, first.session)
    assert resumed.connection.session_reused
    assert resumed.certificate == first.certificate
    assert resumed.certificate
    assert not resumed.certificate.by_authority


# --- cost


@each_version
@pytest.mark.parametrize("credential", [None, NAMED["able to sign others"], issue("x", by=CA)])
def test_no_python_runs_for_the_records_behind_a_handshake(
    server: Server, version: str, credential: Credential | None
) -> None:
    server.register(NAMED["able to sign others"])
    first = server.meet(credential, version)
    resumed = server.meet(credential, version, first.session)
    assert resumed.connection.session_reused
    assert first.connection.context._msg_callback is None
    assert resumed.connection.context._msg_callback is None


# --- Certificate messages


def _vector(data: bytes, length_bytes: int) -> bytes:
    return len(data).to_bytes(length_bytes, "big") + data


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=3), st.binary(max_size=255))
def test_the_certificates_of_a_message_are_a_chain(
    certificates: list[bytes], request_context: bytes
) -> None:
    listed = b"".join(_vector(each, 3) for each in certificates)
    assert _chain(b"\x0b" + _vector(_vector(listed, 3), 3), TLS["1.2"]) == certificates
    listed = b"".join(_vector(each, 3) + _vector(b"extensions", 2) for each in certificates)
    body = _vector(request_context, 1) + _vector(listed, 3)
    assert _chain(b"\x0b" + _vector(body, 3), TLS["1.3"]) == certificates


@given(st.binary(max_size=40), st.sampled_from(list(TLS.values())))
def test_a_malformed_message_raises_nothing(message: bytes, version: int) -> None:
    assert all(each in message for each in _chain(message, version))


# --- the files of CAs


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"", "PEM"),
        (b"no certificate", "PEM"),
        (CA.der, "PEM"),
        ("leaf", "not a CA's"),
        ("leaf and CA", "not a CA's"),
        ("trusted", "BEGIN CERTIFICATE"),
    ],
    ids=["missing", "empty", "text", "DER", "leaf", "leaf and CA", "another form"],
)
def test_a_file_without_cas_stops_the_start(
    tmp_path: Path, content: bytes | str | None, complaint: str
) -> None:
    file = tmp_path / "authority.pem"
    leaf = issue("device", by=CA, ca=False).certificate_file(tmp_path).read_bytes()
    if content == "leaf":
        content = leaf
    elif content == "leaf and CA":
        content = leaf + CA.certificate_file(tmp_path).read_bytes()
    elif content == "trusted":
        pem = CA.certificate_file(tmp_path).read_bytes()
        content = pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE")
    if isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(CertificateError, match=complaint) as raised:
        client_authorities.read([file])
    assert str(file) in str(raised.value)
    assert os.linesep not in str(raised.value)


def test_an_unusable_ca_file_is_one_line_at_the_start(tmp_path: Path) -> None:
    settings = Settings(
        mqtt_port=0, https_port=0, cert_dir=tmp_path, authorities=(tmp_path / "missing.pem",)
    )
    with pytest.raises(StartError, match=r"missing\.pem for authorities: .*"), Emulator(settings):
        pass
