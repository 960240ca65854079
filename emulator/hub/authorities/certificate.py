"""Certificates as a service sends them: of a CA, and proofs that its owner has the key.

This module is imported late: `cryptography` takes 50 to 200 ms.
"""

from __future__ import annotations

import base64
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from emulator.hub.authorities.authority import Authority
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid

_PEM = b"-----BEGIN"
# What OpenSSL refuses by default; such a CA could not authenticate a device.
_LEAST_RSA_BITS = 2048
# The curves of TLS 1.3 that certificates use (RFC 8446, section 4.2.3).
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def parse(text: str) -> x509.Certificate:
    """Return the certificate of a request.

    Args:
        text: PEM, or base64 of PEM or DER.

    Raises:
        ArgumentInvalid: it is too large, not a certificate, or several.
    """
    found = parse_all(text)
    if len(found) != 1:
        raise ArgumentInvalid(f"{len(found)} certificates in one. Register each by itself")
    return found[0]


def parse_all(text: str) -> list[x509.Certificate]:
    """Return the certificates of a request, at least one; each is parsed in all its parts.

    Raises:
        ArgumentInvalid: it is too large, or not a certificate.
    """
    if len(text) > limits.AUTHORITY_CHARACTERS:
        raise ArgumentInvalid(
            f"The certificate has {len(text)} characters. {limits.AUTHORITY_CHARACTERS} are allowed"
        )
    try:
        data = text.encode()
        if _PEM not in data:
            data = base64.b64decode("".join(text.split()), validate=True)
        if _PEM in data:
            found = x509.load_pem_x509_certificates(data)
        else:
            found = [x509.load_der_x509_certificate(data)]
        for each in found:
            # It parses these when they are asked for, and refuses some only then.
            _ = each.subject, each.issuer, each.extensions, each.public_key()
    except (
        TypeError,
        ValueError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
    ):
        raise ArgumentInvalid(
            "Invalid certificate. Use one certificate: PEM, or base64 of PEM or DER"
        ) from None
    return found


def check_authority(certificate: x509.Certificate, now: datetime) -> None:
    """Check that a certificate is that of a CA whose signatures are of use.

    It can be a root or an intermediate.

    Raises:
        ArgumentInvalid: it is not a CA's, must not sign, has expired, or has a key that TLS
            refuses.
    """
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        is_authority = False
    else:
        is_authority = constraints.ca
    if not is_authority:
        raise ArgumentInvalid(
            "The certificate is not that of a CA: its basicConstraints do not say CA:TRUE"
        )
    if not _can_sign(certificate):
        raise ArgumentInvalid(
            "The certificate is not that of a CA that signs: its keyUsage has no keyCertSign"
        )
    if now > certificate.not_valid_after_utc:
        raise ArgumentInvalid(
            f"The certificate has expired: {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
        )
    check_key(certificate.public_key(), "The certificate")


def check_key(key: object, owner: str) -> None:
    """Check that TLS accepts a key.

    Args:
        key: the public key.
        owner: what it belongs to, as the first words of the error.

    Raises:
        ArgumentInvalid: it is too short, or of another kind.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _LEAST_RSA_BITS:
            raise ArgumentInvalid(
                f"{owner} has an RSA key of {key.key_size} bits. {_LEAST_RSA_BITS} or more "
                "are allowed"
            )
    elif not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise ArgumentInvalid(
            f"{owner} has a key of another kind. Use RSA, or EC on P-256, P-384 or P-521"
        )


def _can_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:  # then any use is allowed (RFC 5280, section 4.2.1.3)
        return True


def check_proof(
    proof: x509.Certificate, authority: x509.Certificate, code: str, now: datetime
) -> None:
    """Check that a certificate proves that its sender has the key of a CA.

    The CA itself has signed it, and its common name is the verification code (IoT Hub docs: prove
    possession of a CA certificate).

    Raises:
        ArgumentInvalid: it proves nothing.
    """
    name = common_name(proof.subject)
    if name is None or name.lower() != code.lower():
        raise ArgumentInvalid(
            f"The common name of the proof is {name!r}, not the verification code {code}"
        )
    try:
        proof.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, UnsupportedAlgorithm, ValueError):
        raise ArgumentInvalid(
            "The CA did not sign the proof. Sign it with the key of this very CA"
        ) from None
    if not proof.not_valid_before_utc <= now <= proof.not_valid_after_utc:
        raise ArgumentInvalid("The proof has expired, or is not valid yet. Make a new one")


def der(text: str) -> bytes:
    """Return the certificate of a request, DER; see `parse`.

    Raises:
        ArgumentInvalid
    """
    return parse(text).public_bytes(Encoding.DER)


def load(der: bytes) -> x509.Certificate:
    """Return a certificate that was parsed before."""
    return x509.load_der_x509_certificate(der)


def authority(name: str, certificate: x509.Certificate, now: datetime) -> Authority:
    """Return a CA that is registered now, and not verified yet."""
    return Authority(
        name=name,
        certificate=certificate.public_bytes(Encoding.DER),
        subject=certificate.subject.rfc4514_string(),
        common_name=common_name(certificate.subject),
        expiry=certificate.not_valid_after_utc,
        verified=False,
        created=now,
        updated=now,
    )


def common_name(name: x509.Name) -> str | None:
    """Return the common name of a subject; None if it has none, or several."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else None
