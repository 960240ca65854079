"""TLS handshakes with devices, and the certificate that one may show in its handshake.

A device can prove who it is with a certificate whose thumbprint its identity names, whoever signed
it, or with one that a registered CA signed (IoT Hub docs: authenticate identities with X.509
certificates). The hub decides that. But OpenSSL ends the handshake before the hub has seen a
certificate that leads to no trust anchor, and the `ssl` module lets nobody overrule it. So the
client's certificate is looked at when it arrives, and then verified in one of two contexts that are
kept strictly apart:

- one trusts certificates that identities name, and no certificate but those ever gets there;
- the other trusts registered CAs, and nothing else. All that passes there, a CA has signed.

A device's own certificate may be fit to sign others (`openssl req -x509` makes it so): in one
context for all, they would pass for CA-signed.

What sees the certificate in time is `SSLContext._msg_callback`, a private attribute of CPython; it
is used here alone. It is called in Python for each record, which then takes several times as long.
So it works within the handshake alone, and only while identities name certificates. It adds 0.1 ms
to a handshake, of about 0.4 ms on the server's side, and nothing to what follows.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import ssl
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from emulator.hub.access.certificates import ClientCertificate
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
        certificates: what the server shows.
        authorities: PEM files of the CAs that are registered, root or intermediate.
        thumbprints: those of the certificates that identities name at the time, SHA-1 or SHA-256,
            in lower-case hexadecimal. Read in the thread of the connection.

    Raises:
        CertificateError: a file can't be read, or holds anything but CAs.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        authorities: Sequence[Path] = (),
        thumbprints: Collection[str],
    ) -> None:
        self.context = _asking_context(certificates)
        """What listeners take: it asks for a client certificate, and does without one."""
        for file in authorities:
            _trust(self.context, file)
        self._certificates = certificates
        self._thumbprints = thumbprints
        self._anchors: set[str] = set()  # what `_by_thumbprint` trusts, by SHA-256
        self._signed: set[str] = set()  # what CAs have signed of what was seen, likewise
        self.context.sni_callback = self._begin

    # These two are made when an identity names a certificate: most hubs have none that does.

    @functools.cached_property
    def _watching(self) -> ssl.SSLContext:
        """What looks at a client's certificate as it comes."""
        context = _asking_context(self._certificates)
        context._msg_callback = self._see  # type: ignore[attr-defined]
        return context

    @functools.cached_property
    def _by_thumbprint(self) -> ssl.SSLContext:
        """What trusts certificates that identities name."""
        return _asking_context(self._certificates)

    def client_certificate(self, connection: ssl.SSLObject | None) -> ClientCertificate | None:
        """Tell which certificate the client has shown: in the handshake, or in the one it resumes.

        A client that resumes a session shows none, and OpenSSL checks none: neither dates nor
        signatures. Dates are looked at here. A CA's signature holds once and for all.

        A certificate that an identity names is not said to be a CA's work, even where it is: the
        other context has not seen it.

        Returns:
            the certificate; None if there was none, or if it has expired since.
        """
        if connection is None:
            return None
        try:
            der = connection.getpeercert(binary_form=True)
        except ValueError:  # the connection has broken off meanwhile
            return None
        if der is None:
            return None
        sha1, sha256 = _thumbprints(der)
        if connection.context is self.context and not connection.session_reused:
            self._signed.add(sha256)
        fields = cast("dict[str, Any]", connection.getpeercert())
        if ssl.cert_time_to_seconds(fields["notAfter"]) < time.time():
            return None
        return ClientCertificate(
            sha1, sha256, _common_name(fields), by_authority=sha256 in self._signed
        )

    def _begin(self, connection: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext) -> None:
        """Watch a handshake whose client may show a certificate that an identity names."""
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
        """Make a certificate a trust anchor if an identity names it; says whether one does."""
        sha1, sha256 = _thumbprints(certificate)
        if sha1 not in self._thumbprints and sha256 not in self._thumbprints:
            log.info(
                "No identity names the thumbprints of a client's certificate (SHA-1 %s, SHA-256 "
                "%s): it is refused, unless a registered CA signed it",
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
    # A certificate that is trusted itself need not be self-signed, nor a CA a root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ssl.OPENSSL_VERSION_INFO >= (3, 2):
        # A compressed certificate (RFC 8879) could not be looked at.
        context.options |= _NO_COMPRESSED_CERTIFICATES
    return context


def _trust(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise CertificateError(
            f"Can't use {file} for --client-ca: {error.strerror or error}. It takes a PEM file."
        ) from error
    count = context.cert_store_stats()
    if count["x509"] != count["x509_ca"]:
        raise CertificateError(
            f"Can't use {file} for --client-ca: it holds a certificate that is not a CA's."
        )


def _leaf(message: bytes, version: int) -> bytes:
    """Cut the client's own certificate, DER, out of a Certificate message; empty if it has none.

    Whatever this takes for the certificate, OpenSSL parses the message again and refuses it if it
    is malformed.
    """
    start = 4  # behind the message's type and length: RFC 5246, section 7.4.2
    if version == ssl.TLSVersion.TLSv1_3:
        start += 1 + sum(message[start : start + 1])  # a request context: RFC 8446, section 4.4.2
    start += 3  # the length of the list
    length = int.from_bytes(message[start : start + 3], "big")
    return message[start + 3 : start + 3 + length]


def _thumbprints(certificate: bytes) -> tuple[str, str]:
    # SHA-1 secures nothing here that a user did not choose to name by it.
    sha1 = hashlib.sha1(certificate, usedforsecurity=False)
    return sha1.hexdigest(), hashlib.sha256(certificate).hexdigest()


def _common_name(fields: dict[str, Any]) -> str | None:
    """Find the subject's common name; one with several is not clear, and has none."""
    names = [
        value
        for attributes in fields.get("subject", ())
        for name, value in attributes
        if name == "commonName"
    ]
    return names[0] if len(names) == 1 else None
