"""TLS handshakes with devices, and the certificate that a device may send in its handshake.

A device can authenticate itself with a certificate whose thumbprint its identity names, with any
signer, or with a certificate that a registered CA signed (IoT Hub docs: authenticate identities
with X.509 certificates). The hub decides that. But OpenSSL ends the handshake before the hub has
seen a certificate without a trust anchor, and the `ssl` module offers no way to overrule it. So the
client's certificate is inspected when it arrives. Then it is verified in one of two contexts, which
are kept strictly apart:

- one context trusts the certificates that identities name, and no other certificate gets there;
- the other context trusts registered CAs, and nothing else. A CA has signed all that passes there.

A device's own certificate may be able to sign others (`openssl req -x509` makes it so). In a single
context, the certificates that it signs would pass as CA-signed.

The certificate is seen in time by `SSLContext._msg_callback`, a private attribute of CPython, which
is used only here. It is called in Python for each record, which then takes several times as long.
So it works only within the handshake, and only while identities name certificates. It adds 0.1 ms
to the 0.4 ms of a handshake on the server's side, and nothing to what follows.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import ssl
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.core.clock import Clock
from emulator.net.certificates import CertificateError, Certificates

log = logging.getLogger(__name__)

# RFC 8446, section 5.1 and section 4; the same in TLS 1.2.
_HANDSHAKE_RECORD = 22
_CERTIFICATE_MESSAGE = 11
_FINISHED_MESSAGE = 20

# SSL_OP_NO_RX_CERTIFICATE_COMPRESSION of OpenSSL 3.2 and newer; the ssl module has no name for it.
_NO_COMPRESSED_CERTIFICATES = 1 << 33


class Handshakes:
    """The server's side of TLS handshakes.

    Args:
        certificates: the server's own certificate.
        authorities: PEM files of the registered CAs, root or intermediate.
        thumbprints: those of the certificates that identities name at the time, SHA-1 or SHA-256,
            in lower-case hexadecimal.
        clock: the clock of the hub.

    Raises:
        CertificateError: a file can't be read, or has a certificate that is not a CA's.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        authorities: Sequence[Path] = (),
        thumbprints: Collection[str],
        clock: Clock,
    ) -> None:
        self.context = _asking_context(certificates)
        """For listeners: it asks for a client certificate, and accepts a client without one."""
        for file in authorities:
            _trust(self.context, file)
        self._certificates = certificates
        self._thumbprints = thumbprints
        self._clock = clock
        self._anchors: set[str] = set()  # the SHA-256 of what `_by_thumbprint` trusts
        self._signed: set[str] = set()  # the SHA-256 of what was seen and is signed by a CA
        self.context.sni_callback = self._begin

    # These two are made when an identity first names a certificate: in most hubs none does.

    @functools.cached_property
    def _watching(self) -> ssl.SSLContext:
        """Inspects a client's certificate when it arrives."""
        context = _asking_context(self._certificates)
        context._msg_callback = self._see  # type: ignore[attr-defined]
        return context

    @functools.cached_property
    def _by_thumbprint(self) -> ssl.SSLContext:
        """Trusts the certificates that identities name."""
        return _asking_context(self._certificates)

    def client_certificate(self, connection: ssl.SSLObject | None) -> ClientCertificate | None:
        """Return the certificate of the client, from its handshake or from the session it resumes.

        A client that resumes a session sends no certificate, and OpenSSL checks neither its dates
        nor its signature. Its dates are checked here. A CA's signature does not expire.

        A certificate that an identity names does not count as signed by a CA, even where it is: the
        other context has not seen it.

        Returns:
            The certificate; None if it is missing, or has expired since.
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
        if connection.context is self.context and not connection.session_reused:
            self._signed.add(sha256)
        fields = cast("dict[str, Any]", connection.getpeercert())
        if ssl.cert_time_to_seconds(fields["notAfter"]) < self._clock.now().timestamp():
            return None
        signed = sha256 in self._signed
        return ClientCertificate(sha1, sha256, _common_name(fields), by_authority=signed)

    def _begin(self, connection: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext) -> None:
        """Watch a handshake in which a certificate may come that an identity names."""
        if self._thumbprints:
            connection.context = self._watching

    def _see(
        self,
        connection: ssl.SSLObject,
        direction: str,
        version: int,
        content_type: int,
        message_type: int,
        message: bytes,
    ) -> None:
        """Choose the context in which OpenSSL will verify a client's certificate."""
        if content_type != _HANDSHAKE_RECORD or direction != "read":
            return
        if message_type == _CERTIFICATE_MESSAGE:
            certificate = _leaf(message, version)
            named = bool(certificate) and self._anchor(certificate)
            connection.context = self._by_thumbprint if named else self.context
        elif message_type == _FINISHED_MESSAGE:  # no certificate: a session is resumed
            connection.context = self.context

    def _anchor(self, certificate: bytes) -> bool:
        """Make a certificate a trust anchor if an identity names it; returns whether one does."""
        sha1, sha256 = _thumbprints(certificate)
        if sha1 not in self._thumbprints and sha256 not in self._thumbprints:
            log.info(
                "No identity names the thumbprints of a client's certificate (SHA-1 %s, SHA-256 "
                "%s). It is refused, unless a registered CA signed it.",
                sha1,
                sha256,
            )
            return False
        if sha256 not in self._anchors:
            self._by_thumbprint.load_verify_locations(cadata=certificate)
            self._anchors.add(sha256)
        return True


def _asking_context(certificates: Certificates) -> ssl.SSLContext:
    context = certificates.server_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    # A trusted certificate need not be self-signed, and a trusted CA need not be a root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ssl.OPENSSL_VERSION_INFO >= (3, 2):
        # A compressed certificate (RFC 8879) could not be inspected.
        context.options |= _NO_COMPRESSED_CERTIFICATES
    return context


def _trust(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise CertificateError(
            f"Can't use {file} for --client-ca: {error.strerror or error}. Use a PEM file."
        ) from error
    count = context.cert_store_stats()
    if count["x509"] != count["x509_ca"]:
        raise CertificateError(
            f"Can't use {file} for --client-ca: it has a certificate that is not a CA's."
        )


def _leaf(message: bytes, version: int) -> bytes:
    """Cut the client's own certificate out of a Certificate message.

    OpenSSL parses the message again, and refuses it if it is malformed.

    Returns:
        the certificate, DER; empty if the message has none.
    """
    start = 4  # behind the message's type and length: RFC 5246, section 7.4.2
    if version == ssl.TLSVersion.TLSv1_3:
        start += 1 + sum(message[start : start + 1])  # a request context: RFC 8446, section 4.4.2
    start += 3  # the length of the list
    length = int.from_bytes(message[start : start + 3], "big")
    return message[start + 3 : start + 3 + length]


def _thumbprints(certificate: bytes) -> tuple[str, str]:
    # SHA-1 secures only what a user chose to name by it.
    sha1 = hashlib.sha1(certificate, usedforsecurity=False)
    return sha1.hexdigest(), hashlib.sha256(certificate).hexdigest()


def _common_name(fields: dict[str, Any]) -> str | None:
    """Return the subject's common name; None if it has none, or several."""
    attributes = itertools.chain.from_iterable(fields.get("subject", ()))
    names = [value for name, value in attributes if name == "commonName"]
    return names[0] if len(names) == 1 else None
