"""Certificates of devices and CAs, made as a user would make them, without the emulator's code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

DAY = timedelta(days=1)

# Under the arc that is set aside for examples, so that nothing reads what it holds.
_COMMENT = ObjectIdentifier("2.999.1")


@dataclass(frozen=True)
class Credential:
    """A certificate with its private key, and the certificates that a client sends along."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def sha1(self) -> str:
        return hashlib.sha1(self.der).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def certificate_file(self, folder: Path) -> Path:
        """Write the certificate alone, PEM."""
        file = folder / f"{self.sha256}.crt"
        file.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return file

    def client_file(self, folder: Path) -> Path:
        """Write certificate, chain and key, PEM: what a client loads."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificates = [self.certificate, *self.chain]
        file = folder / f"{self.sha256}.pem"
        file.write_bytes(key + b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
        return file


def issue(
    *common_names: str,
    by: Credential | None = None,
    ca: bool | None = None,
    chain: tuple[Credential, ...] = (),
    start: timedelta = -DAY,
    end: timedelta = 30 * DAY,
    comment: bytes | None = None,
) -> Credential:
    """Make a certificate.

    Args:
        common_names: usually one.
        by: the CA that signs it; by default it signs itself.
        ca: whether it is a CA's; None leaves the extension out, as the plainest tools do.
        chain: what the client sends along.
        start, end: its dates, from now.
        comment: makes it as long as one wants.
    """
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )
    if ca is not None:
        constraints = x509.BasicConstraints(ca=ca, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    if comment is not None:
        extension = x509.UnrecognizedExtension(_COMMENT, comment)
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(by.key if by else key, hashes.SHA256())
    return Credential(certificate, key, tuple(each.certificate for each in chain))
