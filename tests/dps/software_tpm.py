"""A TPM 2.0 in software: two RSA keys, and what a device does with them. No code of the emulator.

Parts and sections are those of the TPM 2.0 Library specification.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import struct
import time
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # it has moved in between
    from cryptography.hazmat.primitives.ciphers.modes import CFB  # type: ignore[no-redef]

# The templates of the SDKs: of the endorsement key, and of the storage root key.
_EK_ATTRIBUTES, _SRK_ATTRIBUTES = 0x000300B2, 0x00030472
_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_SHA256 = b"\x00\x0b"


def block(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def public_area(
    modulus: int, attributes: int, policy: bytes, *, bits: int = 2048, cipher: int = 6
) -> bytes:
    """Return a TPMT_PUBLIC of an RSA key with AES-128 (Part 2, section 12.2.4)."""
    head = struct.pack(">H2sI", 1, _SHA256, attributes) + block(policy)
    parameters = struct.pack(">HHHHHI", cipher, 128, 0x43, 0x10, bits, 0)
    return head + parameters + block(modulus.to_bytes(bits // 8, "big"))


class SoftwareTpm:
    """A TPM, with the keys that the SDKs make in one."""

    def __init__(self) -> None:
        self._ek = rsa.generate_private_key(65537, 2048)
        self._srk = rsa.generate_private_key(65537, 2048)
        self._srk_area = public_area(
            self._srk.public_key().public_numbers().n, _SRK_ATTRIBUTES, b""
        )
        area = public_area(self._ek.public_key().public_numbers().n, _EK_ATTRIBUTES, _EK_POLICY)
        self.endorsement = block(area)
        self.root = block(self._srk_area)
        self.key = b""
        """The key that was imported last."""

    @property
    def document(self) -> dict[str, str]:
        """The `tpm` of a request."""
        return {
            "endorsementKey": base64.b64encode(self.endorsement).decode(),
            "storageRootKey": base64.b64encode(self.root).decode(),
        }

    def activate(self, sealed: bytes) -> None:
        """Import a key that the service has sealed (TPM2_ActivateCredential, TPM2_Import).

        Raises:
            ValueError: it is not for this TPM, or was changed.
        """
        blocks = []
        while sealed:
            (size,) = struct.unpack(">H", sealed[:2])
            blocks.append(sealed[2 : 2 + size])
            sealed = sealed[2 + size :]
        credential, secret, duplicate, wrap_secret, public, rest = blocks
        assert rest == b""
        root_name = _SHA256 + hashlib.sha256(self._srk_area).digest()
        inner_key = _unblock(_unprotect(self._ek, b"IDENTITY\0", secret, credential, root_name))
        kind, name_hash, attributes = struct.unpack(">H2sI", public[:8])
        assert (kind, name_hash) == (8, _SHA256)
        assert attributes & 0x40000, "it can't sign"
        assert not attributes & 0x12, "a TPM imports no key that belongs to another one"
        assert public[8:14] == bytes.fromhex("0000 0005 000b"), "no policy, HMAC, SHA-256"
        unique = _unblock(public[14:])
        name = _SHA256 + hashlib.sha256(public).digest()
        inner = _unprotect(self._srk, b"DUPLICATE\0", wrap_secret, duplicate, name)
        plain = _decrypt(inner_key, inner)
        integrity, sensitive = plain[2:34], plain[34:]
        if not hmac.compare_digest(hashlib.sha256(sensitive + name).digest(), integrity):
            raise ValueError("inner integrity")
        fields = _unblock(sensitive)
        assert fields[:4] == bytes.fromhex("0008 0000"), "a keyed hash without a password"
        seed = _unblock(fields[4:])
        key = _unblock(fields[6 + len(seed) :])
        assert hashlib.sha256(seed + key).digest() == unique
        self.key = key

    def token(self, resource: str, policy: str | None = "registration") -> str:
        """Sign a SAS token with the imported key (TPM2_HMAC)."""
        audience, expiry = quote(resource, safe=""), str(int(time.time()) + 3600)
        signature = hmac.digest(self.key, f"{audience}\n{expiry}".encode(), "sha256")
        text = quote(base64.b64encode(signature), safe="")
        token = f"SharedAccessSignature sr={audience}&sig={text}&se={expiry}"
        return f"{token}&skn={policy}" if policy else token


def a_tpm(number: int = 0) -> SoftwareTpm:
    """Return a TPM; always the same one for a number."""
    return _make(number)


@functools.cache
def _make(_: int) -> SoftwareTpm:
    return SoftwareTpm()


def _unblock(data: bytes) -> bytes:
    (size,) = struct.unpack(">H", data[:2])
    assert len(data) >= 2 + size
    return data[2 : 2 + size]


def _unprotect(
    key: rsa.RSAPrivateKey, label: bytes, secret: bytes, data: bytes, name: bytes
) -> bytes:
    scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
    seed = key.decrypt(secret, scheme)
    integrity = _unblock(data)
    encrypted = data[2 + len(integrity) :]
    signing_key = _kdfa(seed, b"INTEGRITY", b"", 256)
    if not hmac.compare_digest(hmac.digest(signing_key, encrypted + name, "sha256"), integrity):
        raise ValueError("integrity")
    return _decrypt(_kdfa(seed, b"STORAGE", name, 128), encrypted)


def _decrypt(key: bytes, data: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
    return decryptor.update(data) + decryptor.finalize()


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Part 1, section 11.4.10.2, for at most one block of SHA-256."""
    text = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.digest(key, text, "sha256")[: bits // 8]
