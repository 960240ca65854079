"""Certificates for tests: CAs of a user, and the certificates of devices that they sign.

Bytes in, bytes out, as in `emulator.net.authority`. These CAs have no name constraints: they sign
for clients, and no program needs to trust them but the hub under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from emulator.net.authority import PrivateKey, builder, key_pem, key_usage, new_rsa_key

# It stands in each subject, so that a certificate of a test shows what it is.
_ORGANIZATION = "local-iot-hub, for tests only"
_PEM = serialization.Encoding.PEM


class Credential(Struct, frozen=True):
    """A certificate with its key.

    Args:
        certificate: the certificate.
        key: its private key.
        chain: the CAs above it, the next one first, without the root.
    """

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def from_pem(cls, certificates: bytes, key: bytes) -> Credential:
        """Parse a certificate, with those above it, and its key.

        Raises:
            ValueError: a text is damaged, or something else, or they do not belong together.
        """
        try:
            private = serialization.load_pem_private_key(key, password=None)
            own, *chain = x509.load_pem_x509_certificates(certificates)
        except (TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:  # a password, …
            raise ValueError(str(error)) from error
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("the key is neither RSA nor EC")
        if private.public_key() != own.public_key():
            raise ValueError("the key is not the certificate's")
        if chain and chain[0].subject != own.issuer:
            chain = []  # of another certificate, which was here before
        return cls(own, private, tuple(chain))

    @property
    def is_authority(self) -> bool:
        """Whether it can sign certificates."""
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except x509.ExtensionNotFound:
            return False
        return found.value.ca

    def certificate_pem(self) -> bytes:
        """Return the certificate alone."""
        return self.certificate.public_bytes(_PEM)

    def chain_pem(self) -> bytes:
        """Return those above it, except the root."""
        return b"".join(each.public_bytes(_PEM) for each in self.chain)

    def key_pem(self) -> bytes:
        """Return the private key."""
        return key_pem(self.key)

    @property
    def thumbprint(self) -> str:
        """The SHA-256 thumbprint, as the command line of Azure writes it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex().upper()


def create_authority(
    name: str, *, by: Credential | None, rsa_key: bool, days: int, now: datetime
) -> Credential:
    """Create a CA: a root, or an intermediate of another CA.

    Args:
        name: the common name.
        by: the CA that signs it; None makes a root.
        rsa_key: whether the key is RSA; otherwise it is EC.
        days: how long it is valid; a negative number makes one that has expired.
        now: an aware datetime.
    """
    return _create(
        name,
        by,
        rsa_key=rsa_key,
        days=days,
        now=now,
        extensions=[
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (key_usage(signs_certificates=True), True),
        ],
    )


def create_device(
    name: str, *, by: Credential | None, rsa_key: bool, days: int, now: datetime
) -> Credential:
    """Create the certificate of a device or module, or a proof of possession.

    The arguments are those of `create_authority`; without a CA it signs itself.
    """
    return _create(
        name,
        by,
        rsa_key=rsa_key,
        days=days,
        now=now,
        extensions=[
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        ],
    )


def _create(
    name: str,
    by: Credential | None,
    *,
    rsa_key: bool,
    days: int,
    now: datetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> Credential:
    key: PrivateKey = new_rsa_key() if rsa_key else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    signer = by.key if by else key
    made = (
        builder(subject, key.public_key(), now, now + timedelta(days=days))
        .issuer_name(by.certificate.subject if by else subject)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for extension, critical in extensions:
        made = made.add_extension(extension, critical=critical)
    above = (by.certificate, *by.chain) if by and not _is_root(by.certificate) else ()
    return Credential(made.sign(signer, hashes.SHA256()), key, above)


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer
