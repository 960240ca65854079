"""Attestation: how a device proves to the service that it is what it says.

A key, a certificate, or a TPM (DPS docs: symmetric key, X.509 and TPM attestation).
"""

from __future__ import annotations

import base64
import hmac
from typing import Any

from msgspec import Struct

from emulator.dps import certificates, tpm_keys
from emulator.dps.tpm_keys import ENDORSEMENT, ROOT, Tpm
from emulator.hub.access.keys import SymmetricKeys, decode_key, key_document
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject

# A key that the service generates (samples of the REST API).
_GENERATED_KEY_BYTES = 64

_SLOTS = ("primary", "secondary")
_CERTIFICATE = members.Form("certificate", "info")
_PAIR = members.Form(primary=_CERTIFICATE, secondary=_CERTIFICATE)
FORM = members.Form(
    "type",
    symmetricKey=members.Form("primaryKey", "secondaryKey"),
    x509=members.Form(
        clientCertificates=_PAIR,
        signingCertificates=_PAIR,
        caReferences=members.Form(*_SLOTS),
    ),
    tpm=tpm_keys.FORM,
)

KEY, X509, TPM, NONE = "symmetricKey", "x509", "tpm", "none"
CLIENT, SIGNING, REFERENCES = "clientCertificates", "signingCertificates", "caReferences"


class X509Attestation(Struct, frozen=True):
    """Certificates of an enrollment.

    Args:
        kind: `clientCertificates` of one device, `signingCertificates` of a group, or
            `caReferences` to CAs that the service knows.
        certificates: the primary and the secondary one, DER.
        references: the names of the primary and the secondary CA.
    """

    kind: str
    certificates: tuple[bytes | None, bytes | None] = (None, None)
    references: tuple[str | None, str | None] = (None, None)


class Attestation(Struct, frozen=True):
    """The attestation of an enrollment.

    Args:
        type: symmetricKey, x509, tpm or none.
        keys: the keys of symmetricKey.
        x509: the certificates of x509.
        tpm: endorsementKey and storageRootKey of tpm.
    """

    type: str
    keys: SymmetricKeys | None = None
    x509: X509Attestation | None = None
    tpm: dict[str, str] | None = None

    @classmethod
    def parse(cls, block: JsonObject, *, group: bool, before: Attestation | None) -> Attestation:
        """Parse the `attestation` of a request.

        A service reads an enrollment without its keys and certificates, changes it, and writes it
        back. So what a request leaves out stays as it was before.

        Args:
            block: the member of the request.
            group: whether it is for an enrollment group.
            before: the attestation that it replaces.

        Raises:
            ArgumentInvalid: it is invalid, or not of a type for a group.
        """
        kind = block.get("type")
        kept = before if before is not None and before.type == kind else None
        if kind == KEY:
            return cls(KEY, keys=_keys(members.block(block, KEY), kept))
        if kind == X509:
            return cls(X509, x509=_certificates(members.block(block, X509), group, kept))
        if kind == TPM and not group:
            return cls(TPM, tpm=_tpm(members.block(block, TPM), kept))
        if kind == NONE and not group:
            return cls(NONE)
        allowed = (KEY, X509) if group else (KEY, X509, TPM, NONE)
        raise ArgumentInvalid(f"Invalid attestation type: {kind}. Use {', '.join(allowed)}")

    def document(self, *, with_keys: bool = False) -> JsonObject:
        """Return it for a service; only some answers have keys."""
        document: JsonObject = {"type": self.type}
        if self.keys is not None and with_keys:
            document[KEY] = key_document(self.keys)
        elif self.x509 is not None:
            pair: tuple[Any, Any] = self.x509.references
            if self.x509.kind != REFERENCES:
                first, second = self.x509.certificates
                pair = _info(first), _info(second)
            document[X509] = {
                self.x509.kind: {
                    slot: value
                    for slot, value in zip(_SLOTS, pair, strict=True)
                    if value is not None
                }
            }
        elif self.tpm is not None:
            document[TPM] = self.tpm
        return document


def derived_keys(group: SymmetricKeys, registration_id: str) -> SymmetricKeys:
    """Return the keys of a device of a group (DPS docs: symmetric key attestation).

    The registration id counts as the device writes it: its program derives the key too.
    """
    text = registration_id.encode()
    first, second = (
        base64.b64encode(hmac.digest(decode_key(key), text, "sha256")).decode()
        for key in (group.primary, group.secondary)
    )
    return SymmetricKeys(first, second)


def _keys(block: JsonObject, before: Attestation | None) -> SymmetricKeys:
    given = [members.text(block, name) or None for name in ("primaryKey", "secondaryKey")]
    if any(given):
        return SymmetricKeys.from_request(*given)
    if before is not None and before.keys is not None:
        return before.keys
    return SymmetricKeys.generate(_GENERATED_KEY_BYTES)


def _certificates(block: JsonObject, group: bool, before: Attestation | None) -> X509Attestation:
    kinds = [kind for kind in (CLIENT, SIGNING, REFERENCES) if block.get(kind) is not None]
    allowed = (SIGNING if group else CLIENT, REFERENCES)
    if len(kinds) != 1 or kinds[0] not in allowed:
        raise ArgumentInvalid(f"x509 must have one of {' and '.join(allowed)}")
    (kind,) = kinds
    pair = members.block(block, kind)
    if kind == REFERENCES:
        first, second = (members.text(pair, slot) or None for slot in _SLOTS)
        found: tuple[Any, Any] = first, second
        parsed = X509Attestation(kind, references=(first, second))
    else:
        old = before.x509 if before is not None else None
        kept = old.certificates if old is not None and old.kind == kind else (None, None)
        first_der, second_der = (
            _certificate(members.block(pair, slot), earlier)
            for slot, earlier in zip(_SLOTS, kept, strict=True)
        )
        found = first_der, second_der
        parsed = X509Attestation(kind, certificates=(first_der, second_der))
    if not any(found):
        raise ArgumentInvalid(f"{kind} has neither a primary nor a secondary member")
    return parsed


def _certificate(block: JsonObject, before: bytes | None) -> bytes | None:
    text = members.text(block, "certificate")
    if text:
        return certificates.read(text)
    return before if block.get("info") is not None else None


def _info(der: bytes | None) -> JsonObject | None:
    return None if der is None else {"info": certificates.describe(der)}


def _tpm(block: JsonObject, before: Attestation | None) -> dict[str, str]:
    tpm = {name: text for name in (ENDORSEMENT, ROOT) if (text := members.text(block, name))}
    if before is not None and before.tpm is not None:
        tpm = {**before.tpm, **tpm}
    if (parsed := Tpm.parse(tpm)) is None:
        raise ArgumentInvalid(f"tpm has no {ENDORSEMENT}")
    tpm_keys.check(parsed)
    return tpm
