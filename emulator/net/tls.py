"""TLS handshakes with devices, and the certificate that a device may send in its handshake.

A device can authenticate itself with a certificate whose thumbprint its identity names, with any
signer, or with a certificate that a registered CA signed (IoT Hub docs: authenticate identities
with X.509 certificates). The hub decides that. It refuses every other certificate with an answer of
the protocol, such as CONNACK 5. But OpenSSL ends the handshake before the hub has seen a
certificate without a trust anchor, and the `ssl` module offers no way to overrule it. So the
client's certificate is inspected when it arrives. Then it is verified in one of these contexts,
which are kept strictly apart:

- one context trusts the certificates that identities name, and no other certificate gets there;
- one context trusts registered CAs, and nothing else. A CA has signed all that passes there. CAs
  with the same subject have a context each: of these, OpenSSL would try the first one alone;
- any other certificate has a context of its own, which trusts it alone. It proves only that the
  client has its key, and authenticates nothing.

A device's own certificate may be able to sign others (`openssl req -x509` makes it so). In a single
context, the certificates that it signs would pass as CA-signed.

OpenSSL does not check the dates of certificates in these handshakes. The hub does it, and refuses a
certificate that has expired with an answer too. The dates of CAs are checked with their signatures.

The certificate is seen in time by `SSLContext._msg_callback`, a private attribute of CPython, which
is used only here. It is called in Python for each record, which then takes several times as long.
So it works only within the handshake, where it takes less than 0.02 of 0.3 ms on the server's side.
A certificate that no identity names takes 0.8 ms more.

OpenSSL itself still ends the handshake of a certificate that is malformed, that has a weak key (RSA
with 1,024 bits), or whose extensions forbid it to a client.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.core.clock import Clock
from emulator.hub.core.printable import printable
from emulator.net.certificates import NO_CHECK_TIME, Certificates
from emulator.net.tls_connection import TlsConnection, connection_class

log = logging.getLogger(__name__)

# RFC 8446, section 5.1 and section 4; the same in TLS 1.2.
_RECORD_HEADER = 256  # a pseudo type of OpenSSL: SSL3_RT_HEADER
_HANDSHAKE_RECORD = 22
_CERTIFICATE_MESSAGE = 11
_FINISHED_MESSAGE = 20
_TLS_1_2 = b"\x03\x03"
_RECORD_BYTES = 2**14  # RFC 5246, section 6.2.1

# SSL_OP_NO_RX_CERTIFICATE_COMPRESSION of OpenSSL 3.2 and newer; the ssl module has no name for it.
_NO_COMPRESSED_CERTIFICATES = 1 << 33


class Handshakes:
    """The server's side of TLS handshakes.

    Args:
        certificates: the server's own certificate.
        authorities: returns the registered CAs at the time, root or intermediate, DER: another
            tuple after each change.
        thumbprints: those of the certificates that identities name at the time, SHA-1 or SHA-256,
            in lower-case hexadecimal.
        clock: the clock of the hub; certificates are made with the machine's time.
        amqp_port: the port for AMQP without TLS, for clients that speak it elsewhere.

    Raises:
        CertificateError: a file of the server can't be read any more.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        authorities: Callable[[], tuple[bytes, ...]] = tuple,
        thumbprints: Collection[str],
        clock: Clock,
        amqp_port: int | None = None,
    ) -> None:
        self.context = certificates.server_context()
        """For listeners: it asks for a client certificate, and accepts a client without one."""
        _ask(self.context)
        self.context.sslobject_class = connection_class(certificates.bundle, amqp_port)
        self.context.verify_flags |= NO_CHECK_TIME  # these flags hold for the whole handshake
        if ssl.OPENSSL_VERSION_INFO >= (3, 2):
            # A compressed certificate (RFC 8879) could not be inspected.
            self.context.options |= _NO_COMPRESSED_CERTIFICATES
        _watch(self.context, self._see)
        self._by_thumbprint = _verifying_context()
        self._certificates = certificates
        self._authorities = authorities
        self._signers: _Signers | None = None
        # Also those of CAs that were registered when a handshake began.
        self._signing = WeakSet[ssl.SSLContext]()
        self._signers_of = WeakKeyDictionary[ssl.SSLObject, bytes]()
        self._thumbprints = thumbprints
        self._machine = clock.machine
        self._anchors: set[str] = set()  # the SHA-256 of what `_by_thumbprint` trusts
        # The CA of each certificate that was seen and is signed, both by their SHA-256.
        self._signed: dict[str, bytes] = {}

    def use(self, thumbprints: Collection[str]) -> None:
        """Use the certificates that the identities of another hub name, from now on."""
        self._thumbprints = thumbprints

    def client_certificate(self, connection: ssl.SSLObject | None) -> ClientCertificate | None:
        """Return the certificate of the client, from its handshake or from the session it resumes.

        A client that resumes a session sends no certificate. A CA's signature, which was verified
        in the first handshake, does not expire. But the CA must still be registered.

        A certificate that an identity names does not count as signed by a CA, even where it is: the
        other context has not seen it.

        Returns:
            The certificate; None if the client sent none.
        """
        if connection is None:
            return None
        try:
            der = connection.getpeercert(binary_form=True)
        except ValueError:  # the connection has ended meanwhile
            return None
        if der is None:
            return None
        sha1, sha256 = _thumbprints(der)
        if connection.session_reused:
            by = self._signed.get(sha256)
        else:
            by = self._signer_of(connection)
            if by is not None:
                self._signed[sha256] = by
        signers = self._current_signers()
        signed = signers is not None and by in signers.digests
        fields = cast("dict[str, Any]", connection.getpeercert())
        start, end = (ssl.cert_time_to_seconds(fields[name]) for name in ("notBefore", "notAfter"))
        return ClientCertificate(
            sha1,
            sha256,
            _common_name(fields),
            by_authority=signed,
            in_date=start <= self._machine.now().timestamp() <= end,
        )

    def _signer_of(self, connection: ssl.SSLObject) -> bytes | None:
        """Return the SHA-256 of the CA that a handshake has verified; None if it verified none."""
        if connection.context not in self._signing:
            return None
        found = self._signers_of.get(connection)  # each request over HTTPS asks
        if found is None:
            found = self._signers_of[connection] = _digest(_trusted_end(connection))
        return found

    def client_chain(self, connection: ssl.SSLObject | None) -> list[bytes]:
        """Return the certificates that the client sent, DER; its own comes first.

        A client that resumes a session has sent its own alone: the session keeps no other.
        """
        if connection is None:
            return []
        try:
            chain = _source_of_chains(connection).get_unverified_chain() or [
                connection.getpeercert(binary_form=True)
            ]
        except ValueError:  # the connection has ended meanwhile
            return []
        return [_der(each) for each in chain if each is not None]

    def _see(
        self,
        connection: ssl.SSLObject,
        direction: str,
        version: int,
        content_type: int,
        message_type: int,
        message: bytes,
    ) -> None:
        """Choose the context in which OpenSSL will verify a client's certificate.

        What a client without TLS sends looks like the header of a record.
        """
        if direction != "read":
            return
        if content_type == _RECORD_HEADER:
            cast("TlsConnection", connection).header = message
        if content_type != _HANDSHAKE_RECORD:
            return
        if message_type == _CERTIFICATE_MESSAGE:
            connection.context = self._context_for(_chain(message, version))
        elif message_type == _FINISHED_MESSAGE:  # no certificate: a session is resumed
            connection.context = self._by_thumbprint

    def _context_for(self, chain: Sequence[bytes]) -> ssl.SSLContext:
        """Return the context in which to verify what a client sent: its certificate comes first."""
        if not chain or self._anchor(chain[0]):
            return self._by_thumbprint
        signers = self._current_signers()
        if signers is not None and (signing := signers.context_for(chain)) is not None:
            return signing
        context = _verifying_context()
        # OpenSSL refuses a malformed certificate itself.
        with contextlib.suppress(ssl.SSLError):
            context.load_verify_locations(cadata=chain[0])
        return context

    def _current_signers(self) -> _Signers | None:
        """Return the CAs that are registered now; None without any.

        A connection that a CA has let in stays open when the CA is removed: a real hub checks the
        certificate in the handshake alone.
        """
        authorities = self._authorities()
        if not authorities:
            self._signers = None
        elif self._signers is None or self._signers.authorities != authorities:
            self._signers = _Signers(self._certificates, authorities)
            self._signing.update(self._signers.contexts)
        return self._signers

    def _anchor(self, certificate: bytes) -> bool:
        """Make a certificate a trust anchor if an identity names it; returns whether one does."""
        sha1, sha256 = _thumbprints(certificate)
        if sha1 not in self._thumbprints and sha256 not in self._thumbprints:
            log.info(
                "No identity names the thumbprints of a client's certificate (SHA-1 %r, SHA-256 "
                "%r). It is refused, unless a registered CA signed it.",
                sha1,
                sha256,
            )
            return False
        if sha256 not in self._anchors:
            self._by_thumbprint.load_verify_locations(cadata=certificate)
            self._anchors.add(sha256)
        return True


class _Signers:
    """The registered CAs.

    Args:
        certificates: the server's own certificates.
        authorities: the CAs, root or intermediate, DER.

    Raises:
        CertificateError: see `Handshakes`.
    """

    def __init__(self, certificates: Certificates, authorities: tuple[bytes, ...]) -> None:
        self.authorities = authorities
        self.digests = {_digest(each) for each in authorities}
        """The SHA-256 of each."""
        self.contexts: list[ssl.SSLContext] = []
        """Each trusts CAs with different subjects, and nothing else."""
        seen: Counter[str] = Counter()
        for each in authorities:
            try:
                subject = _subject(each)
            except ssl.SSLError as error:  # it was parsed before, but not by OpenSSL
                log.warning("A registered CA can't be used: %s", printable(error))
                continue
            if seen[subject] == len(self.contexts):
                context = certificates.server_context()
                _ask(context)
                context.maximum_version = ssl.TLSVersion.TLSv1_2  # for `_verify`
                self.contexts.append(context)
            self.contexts[seen[subject]].load_verify_locations(cadata=each)
            seen[subject] += 1

    def context_for(self, chain: Sequence[bytes]) -> ssl.SSLContext | None:
        """Return the context that trusts the CA of a certificate.

        Args:
            chain: the certificate, and those that the client sent along, DER.

        Returns:
            the context; None if no CA signed the certificate, or if one is outside its dates.
        """
        reasons = []
        for context in self.contexts:
            try:
                self._verify(context, chain)
            except ssl.SSLError as error:
                reasons.append(str(error))
            else:
                return context
        log.info(
            "No registered CA signed the certificate of a client: %s", printable("; ".join(reasons))
        )
        return None

    def _verify(self, context: ssl.SSLContext, chain: Sequence[bytes]) -> None:
        """Verify a chain.

        The `ssl` module does it only in a handshake, which a wrong one ends. So OpenSSL is asked
        first, in a handshake in memory. It verifies the chain before it asks for more.

        Raises:
            ssl.SSLError: no CA signed the certificate.
        """
        to_server = ssl.MemoryBIO()
        server = context.wrap_bio(to_server, ssl.MemoryBIO(), server_side=True)
        for data in (self._client_hello, _certificate_records(chain)):
            to_server.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                server.do_handshake()

    @functools.cached_property
    def _client_hello(self) -> bytes:
        """The first message of a client with TLS 1.2, where certificates are not encrypted."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        sent = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
        return sent.read()


def _ask(context: ssl.SSLContext) -> None:
    """Ask clients for a certificate, and verify it if they send one."""
    context.verify_mode = ssl.CERT_OPTIONAL
    # A trusted certificate need not be self-signed, and a trusted CA need not be a root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _verifying_context() -> ssl.SSLContext:
    """Return a context for the rest of a handshake: the server has shown its certificate before."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _ask(context)
    return context


def _watch(context: ssl.SSLContext, see: Callable[..., None]) -> None:
    # Not by the property of SSLContext, which turns each number into a member of an Enum first.
    super(ssl.SSLContext, ssl.SSLContext)._msg_callback.__set__(context, see)  # type: ignore[misc]


def _chain(message: bytes, version: int) -> list[bytes]:
    """Cut the certificates out of a Certificate message; the client's own is the first one.

    OpenSSL parses the message again, and refuses it if it is malformed.

    Returns:
        the certificates, DER; an empty list if the message has none.
    """
    has_extensions = version == ssl.TLSVersion.TLSv1_3
    start = 4  # behind the message's type and length: RFC 5246, section 7.4.2
    if has_extensions:
        start += 1 + sum(message[start : start + 1])  # a request context: RFC 8446, section 4.4.2
    start += 3  # the length of the list
    chain = []
    while start < len(message):
        length = int.from_bytes(message[start : start + 3], "big")
        chain.append(message[start + 3 : start + 3 + length])
        start += 3 + length
        if has_extensions:
            start += 2 + int.from_bytes(message[start : start + 2], "big")
    return chain


def _certificate_records(chain: Sequence[bytes]) -> bytes:
    """Write the Certificate message of TLS 1.2 as records (RFC 5246, sections 6.2.1 and 7.4.2)."""
    listed = b"".join(_vector(certificate) for certificate in chain)
    message = bytes([_CERTIFICATE_MESSAGE]) + _vector(_vector(listed))
    parts = (message[at : at + _RECORD_BYTES] for at in range(0, len(message), _RECORD_BYTES))
    head = bytes([_HANDSHAKE_RECORD]) + _TLS_1_2
    return b"".join(head + len(part).to_bytes(2, "big") + part for part in parts)


def _source_of_chains(connection: ssl.SSLObject) -> Any:
    # Public from Python 3.13 on, where it returns bytes (CPython source: `_ssl`).
    return connection if sys.version_info >= (3, 13) else connection._sslobj  # type: ignore[attr-defined]


def _trusted_end(connection: ssl.SSLObject) -> bytes:
    """Return the trusted certificate with which the verified chain of a client ends, DER."""
    return _der(_source_of_chains(connection).get_verified_chain()[-1])


def _subject(certificate: bytes) -> str:
    """Return the subject of a CA, as OpenSSL compares subjects: without letter case and spaces.

    Raises:
        ssl.SSLError: OpenSSL can't parse it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=certificate)
    return "".join(str([each["subject"] for each in context.get_ca_certs()]).lower().split())


def _digest(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


def _der(certificate: Any) -> bytes:
    if isinstance(certificate, bytes):
        return certificate
    return ssl.PEM_cert_to_DER_cert(certificate.public_bytes())


def _vector(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def _thumbprints(certificate: bytes) -> tuple[str, str]:
    # SHA-1 secures only what a user chose to name by it.
    sha1 = hashlib.sha1(certificate, usedforsecurity=False)
    return sha1.hexdigest(), hashlib.sha256(certificate).hexdigest()


def _common_name(fields: dict[str, Any]) -> str | None:
    """Return the subject's common name; None if it has none, or several."""
    attributes = itertools.chain.from_iterable(fields.get("subject", ()))
    names = [value for name, value in attributes if name == "commonName"]
    return names[0] if len(names) == 1 else None
