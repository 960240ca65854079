"""The local certificate authority (CA): its key, its certificate, and the certificates it signs.

Bytes in, bytes out: `emulator.net.certificates` keeps the files. It imports this module
only to make a certificate, because importing `cryptography` takes 50 to 200 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

# So long that a user who trusts the CA by hand need not do it again.
CA_LIFETIME = timedelta(days=3650)
# Chromium and Apple refuse server certificates that are valid for more than 398 days, the day of
# clock skew included (CA/Browser Forum, Baseline Requirements 6.3.2).
SERVER_LIFETIME = timedelta(days=365)
# How far a client's clock may lag behind ours before it finds a new certificate "not yet valid".
CLOCK_SKEW = timedelta(days=1)
# RFC 5280 appendix A, ub-common-name.
MAX_COMMON_NAME = 64
# What every CA can sign for, besides the names that it is made for.
_LOOPBACK = ("localhost", "127.0.0.0/8", "::1")
# The size of the keys of a real hub's certificates.
_RSA_BITS = 2048

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Authority(Struct, frozen=True):
    """A CA: its certificate, and the private key that signs.

    The key is an RSA key: a small TLS client that knows RSA alone must verify the CA's signature
    too.
    """

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @classmethod
    def create(cls, machine: str, names: Iterable[str], now: datetime) -> Authority:
        """Create a CA.

        Args:
            machine: the machine that its subject names.
            names: DNS names and IP addresses that it can sign for; loopback is always one of them.
            now: an aware datetime.
        """
        key = new_rsa_key()
        subject = _subject(f"local-iot-hub CA, development only, {machine}")
        permitted = dict.fromkeys(map(_subtree, [*_LOOPBACK, *names]))
        certificate = (
            builder(subject, key.public_key(), now, now + CA_LIFETIME)
            .issuer_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            # A program that trusts this CA must trust it for these names alone. The extension is
            # not critical, because mbedTLS refuses a CA where it is (Mbed-TLS/mbedtls#8759). Other
            # libraries, OpenSSL among them, obey it all the same.
            .add_extension(x509.NameConstraints([*permitted], None), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def from_pem(cls, pem: bytes) -> Authority:
        """Parse what `to_pem` wrote.

        Raises:
            ValueError: the text is damaged, or is something else.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
            certificate = x509.load_pem_x509_certificate(pem)
        except (TypeError, UnsupportedAlgorithm) as error:  # a password, an exotic kind of key
            raise ValueError(str(error)) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("it is not an RSA key")
        if key.public_key() != certificate.public_key():
            raise ValueError("the key is not the certificate's")
        return cls(certificate, key)

    def to_pem(self) -> bytes:
        """Return key and certificate as one text: in one file they always match."""
        return key_pem(self.key) + self.certificate_pem()

    def certificate_pem(self) -> bytes:
        """Return the certificate alone, which is public."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def permits(self, name: str) -> bool:
        """Return whether its name constraints permit a DNS name or an IP address.

        A CA without name constraints permits nothing: it is one of an earlier version.
        """
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        except x509.ExtensionNotFound:
            return False
        general = _general_name(name)
        return any(_is_below(general, each) for each in found.value.permitted_subtrees or ())

    def issue(self, names: Iterable[str], now: datetime, key: PrivateKey | None = None) -> bytes:
        """Return a new server certificate and its key, as PEM. It never outlives the CA.

        Args:
            names: DNS names and IP addresses.
            now: an aware datetime.
            key: the key of the server; None makes an elliptic-curve key.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        end = min(now + SERVER_LIFETIME, self.certificate.not_valid_after_utc)
        hosts = x509.SubjectAlternativeName([_general_name(name) for name in names])
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = (
            builder(_subject("local-iot-hub"), key.public_key(), now, end)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(hosts, critical=False)
            .add_extension(signer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + key_pem(key)


def new_rsa_key() -> rsa.RSAPrivateKey:
    """Create an RSA key, which takes 30 to 250 ms."""
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def rsa_key_of(pem: bytes) -> rsa.RSAPrivateKey:
    """Return the RSA key in a server's file, or a new one if the file has no good key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return new_rsa_key()
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _RSA_BITS:
        return key
    return new_rsa_key()


def builder(
    subject: x509.Name, key: CertificatePublicKeyTypes, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    """Return what every certificate has: a subject, a key, a serial number, and its dates."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    # ASCII: the limit counts bytes, and a machine's name can be invalid text.
    text = common_name.encode("ascii", "replace").decode("ascii")[:MAX_COMMON_NAME]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return the use of a key: to sign certificates and revocation lists, or handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subtree(name: str) -> x509.GeneralName:
    """Return what a name constraint permits for a name, an address or a network."""
    try:
        return x509.IPAddress(ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def _is_below(name: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    """Return whether a name lies in a subtree (RFC 5280, section 4.2.1.10)."""
    network, label = subtree.value, name.value
    if isinstance(network, IPv4Network | IPv6Network):
        return label in network if isinstance(label, IPv4Address | IPv6Address) else False
    return isinstance(name, x509.DNSName) and f".{label}".endswith(f".{network}")


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key as PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
