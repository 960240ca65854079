"""The keys of devices with a TPM: the service makes them, and seals them for the TPM.

A key follows from the TPM, the registration id and a secret of the service. So nothing is stored
for a device that has proved nothing, and a key lasts over a restart.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from emulator.dps import tpm
from emulator.hub.access.keys import decode_key
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject

ENDORSEMENT, ROOT = "endorsementKey", "storageRootKey"
FORM = members.Form(ENDORSEMENT, ROOT)

# What a key is for: a token at the service, or at the hub.
REGISTRATION, DEVICE = b"registration", b"device"


class Tpm(NamedTuple):
    """A TPM, by the public areas of two keys (TPM2B_PUBLIC).

    Args:
        endorsement: its endorsement key.
        root: its storage root key; None if it is not known.
    """

    endorsement: bytes
    root: bytes | None

    @classmethod
    def parse(cls, block: JsonObject) -> Tpm | None:
        """Parse the `tpm` of a request; None if it has no endorsement key.

        Raises:
            ArgumentInvalid: a key is not base64.
        """
        endorsement, root = (_decode(block, name) for name in (ENDORSEMENT, ROOT))
        return None if endorsement is None else cls(endorsement, root)


def check(device: Tpm) -> None:
    """Check the public areas of a TPM.

    Raises:
        ArgumentInvalid: one is malformed, or another kind of key.
    """
    _read(device.endorsement, ENDORSEMENT)
    if device.root is not None:
        _read(device.root, ROOT)


def derive(secret: bytes, purpose: bytes, registration_id: str, endorsement: bytes) -> bytes:
    """Return the key of a device for HMAC-SHA256."""
    subject = b"\0".join((purpose, registration_id.lower().encode(), endorsement))
    return hmac.digest(secret, subject, "sha256")


def seal(device: Tpm, key: bytes) -> bytes:
    """Seal a key: see `tpm.seal`.

    Raises:
        ArgumentInvalid: a public area is missing, malformed, or of another kind.
    """
    if device.root is None:
        raise ArgumentInvalid(f"tpm has no {ROOT}: add it to the request or to the enrollment")
    return tpm.seal(_read(device.endorsement, ENDORSEMENT), _read(device.root, ROOT), key)


def _read(area: bytes, name: str) -> tpm.StorageKey:
    try:
        return tpm.StorageKey.parse(area)
    except tpm.TpmError as error:
        raise ArgumentInvalid(f"{name} is not the public area of a TPM's key: {error}") from None


def _decode(block: JsonObject, name: str) -> bytes | None:
    text = members.text(block, name)
    if not text:
        return None
    try:
        return decode_key(text)
    except ValueError:
        raise ArgumentInvalid(f"{name} is not base64") from None
