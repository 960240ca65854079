"""The CA of the service: it issues certificates to devices that ask for one by a CSR.

DPS docs (preview of 2025): certificate management.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from emulator.dps import limits
from emulator.hub.access.keys import decode_key
from emulator.hub.authorities.certificate import check_key, common_name
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.store import Key, Store
from emulator.net.authority import CA_LIFETIME, builder

_NAME = "Local Device Provisioning Service"
_LIFETIME = timedelta(days=limits.ISSUED_DAYS)


class IssuingCa(Struct, frozen=True):
    """The CA of a service; its certificate and its key, DER."""

    certificate: bytes
    private_key: bytes

    @property
    def key(self) -> Key:
        """See `Record.key`: a service has one CA."""
        return ("issuer",)

    def __repr__(self) -> str:
        # A log line or a traceback must not show the key.
        return f"{type(self).__name__}(…)"


def issue(store: Store, csr: object, registration_id: str, now: datetime) -> tuple[bytes, ...]:
    """Issue a certificate, and return it with the CA's, DER.

    Args:
        store: the store of the CA, which is made with the first certificate.
        csr: the request of the device: PKCS#10, DER in base64.
        registration_id: the common name that the request must have.
        now: the machine's time.

    Raises:
        ArgumentInvalid: the request is malformed, not signed with its key, for another name, or has
            a key that TLS refuses.
    """
    request = _read(csr)
    if (name := common_name(request.subject)) != registration_id:
        raise ArgumentInvalid(f"The common name of csr is {name}, not {registration_id}")
    ca = store.get(IssuingCa, ("issuer",))
    if ca is None:
        ca = _create(now)
        store.commit(put=(ca,))
    own = x509.load_der_x509_certificate(ca.certificate)
    key = load_der_private_key(ca.private_key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):  # it is what `_create` made
        raise TypeError(type(key).__name__)
    certificate = (
        builder(request.subject, request.public_key(), now, now + _LIFETIME)
        .issuer_name(own.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER), ca.certificate


def _read(csr: object) -> x509.CertificateSigningRequest:
    if not isinstance(csr, str):
        raise ArgumentInvalid("csr is not a string")
    try:
        request = x509.load_der_x509_csr(decode_key(csr))
        # Both parse what the first call leaves as it is.
        signed, _ = request.is_signature_valid, request.subject
    except (ValueError, UnsupportedAlgorithm):
        raise ArgumentInvalid("csr is not a PKCS#10 request, DER in base64") from None
    if not signed:
        raise ArgumentInvalid("csr is not signed with its own key")
    check_key(request.public_key(), "csr")
    return request


def _create(now: datetime) -> IssuingCa:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    certificate = (
        builder(subject, key.public_key(), now, now + CA_LIFETIME)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return IssuingCa(certificate.public_bytes(Encoding.DER), private)


def as_text(chain: tuple[bytes, ...]) -> tuple[str, ...]:
    """Return certificates as the answer to a device has them: DER in base64."""
    return tuple(base64.b64encode(each).decode() for each in chain)
