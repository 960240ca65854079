"""Certificates as values: read, described, and verified up to a certificate that is trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.dps import limits
from emulator.hub.authorities.certificate import parse_all
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso


def read(text: str) -> bytes:
    """Return the certificate of a request, DER; of several, the first one.

    Args:
        text: PEM, or base64 of PEM or DER: the SDKs send all three.

    Raises:
        ArgumentInvalid: it is not a certificate.
    """
    return _der(parse_all(text)[0])


def describe(der: bytes) -> JsonObject:
    """Return the `info` of a certificate, as the service API has it."""
    certificate = x509.load_der_x509_certificate(der)
    return {
        "subjectName": certificate.subject.rfc4514_string(),
        "sha1Thumbprint": hashlib.sha1(der, usedforsecurity=False).hexdigest().upper(),
        "sha256Thumbprint": hashlib.sha256(der).hexdigest().upper(),
        "issuerName": certificate.issuer.rfc4514_string(),
        "notBeforeUtc": iso(certificate.not_valid_before_utc),
        "notAfterUtc": iso(certificate.not_valid_after_utc),
        "serialNumber": f"{certificate.serial_number:X}",
        "version": certificate.version.value + 1,
    }


def is_trusted(chain: Sequence[bytes], anchors: Sequence[bytes], now: datetime) -> bool:
    """Return whether a chain leads to a trusted certificate, all of them within their dates.

    Args:
        chain: what a device sent in its handshake, DER: its own certificate comes first, the order
            of the others does not matter.
        anchors: the certificates that are trusted, DER, roots or intermediates.
        now: the time.
    """
    try:
        known = chain[: limits.CHAIN_LENGTH + 1]
        own, *others = [x509.load_der_x509_certificate(each) for each in known]
        trusted = [x509.load_der_x509_certificate(each) for each in anchors]
    except (ValueError, x509.InvalidVersion):
        return False
    trusted = [each for each in trusted if _in_date(each, now)]
    # Each certificate counts once, where the fewest CAs are below it: paths can be very many.
    level = [own]
    for depth in range(limits.CHAIN_LENGTH + 1):
        level = [each for each in level if _in_date(each, now)]
        if any(_signed(each, anchor, depth) for each in level for anchor in trusted):
            return True
        above = [other for other in others if any(_signed(each, other, depth) for each in level)]
        others = [other for other in others if other not in above]
        level = above
    return False


def _in_date(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _signed(certificate: x509.Certificate, by: x509.Certificate, depth: int) -> bool:
    """Return whether a CA signed a certificate, which has `depth` CAs below it."""
    try:
        constraints = by.extensions.get_extension_for_class(x509.BasicConstraints).value
        longest = constraints.path_length
        if not constraints.ca or (longest is not None and depth > longest):
            return False
        certificate.verify_directly_issued_by(by)
    except (
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.UnsupportedGeneralNameType,
        InvalidSignature,
        TypeError,
        UnsupportedAlgorithm,
        ValueError,
    ):
        return False
    return True


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
