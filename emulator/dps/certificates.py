"""Certificates as values: read, described, and verified up to a certificate that is trusted."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

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


class Chain:
    """What a device sent in its handshake: it is followed once, however many enrollments there are.

    Args:
        chain: the certificates, DER: that of the device comes first, the order of the others does
            not matter.
        now: the time. Certificates out of their dates prove nothing.
    """

    def __init__(self, chain: Sequence[bytes], now: datetime) -> None:
        self._now = now
        # Each certificate that leads up from that of the device, by the name of the CA that it
        # asks for, with the number of CAs below that.
        self._steps: dict[bytes, list[tuple[x509.Certificate, int]]] = {}
        try:
            own, *others = [_named(each) for each in chain[: limits.CHAIN_LENGTH + 1]]
        except (ValueError, x509.InvalidVersion):
            return
        # Each certificate counts once, where the fewest CAs are below it: paths can be very many.
        level = [own]
        for depth in range(limits.CHAIN_LENGTH + 1):
            level = [each for each in level if _in_date(each.certificate, now)]
            for each in level:
                self._steps.setdefault(each.issuer, []).append((each.certificate, depth))
            level = [
                other for other in others if any(_signed(each, other, depth) for each in level)
            ]
            others = [other for other in others if other not in level]

    def leads_to(self, anchors: Sequence[bytes]) -> bool:
        """Return whether a trusted certificate signed one of these.

        Args:
            anchors: the certificates that are trusted, DER, roots or intermediates.
        """
        return any(
            _in_date(anchor.certificate, self._now) and _is_signed(each, anchor.certificate, depth)
            for anchor in map(_anchor, anchors)
            if anchor is not None
            for each, depth in self._steps.get(anchor.subject, ())
        )


class _Named(NamedTuple):
    """A certificate with its names, DER: they are compared before any signature."""

    certificate: x509.Certificate
    subject: bytes
    issuer: bytes


def _named(der: bytes) -> _Named:
    certificate = x509.load_der_x509_certificate(der)
    return _Named(
        certificate, certificate.subject.public_bytes(), certificate.issuer.public_bytes()
    )


# Those of all groups that a service can have.
@functools.lru_cache(2 * limits.GROUPS_OF_A_KIND)
def _anchor(der: bytes) -> _Named | None:
    """Return a trusted certificate; None if it is malformed."""
    try:
        return _named(der)
    except (ValueError, x509.InvalidVersion):
        return None


def _in_date(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _signed(each: _Named, by: _Named, depth: int) -> bool:
    """See `_is_signed`; most certificates name another CA."""
    return each.issuer == by.subject and _is_signed(each.certificate, by.certificate, depth)


def _is_signed(certificate: x509.Certificate, by: x509.Certificate, depth: int) -> bool:
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
