"""TPM 2.0, as the service needs it: a key that it makes for one TPM, and that no other can use.

The service seals the key for the endorsement key and the storage root key of a TPM. Parts and
sections are those of the TPM 2.0 Library specification; the order in the blob is that of the SDKs
(azure-iot-security-tpm).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# Part 2, section 6.3.
_RSA, _AES, _HMAC, _KEYED_HASH, _NULL, _CFB = 0x0001, 0x0006, 0x0005, 0x0008, 0x0010, 0x0043
_SHA256 = 0x000B
_HASHES = {
    0x0004: ("sha1", hashes.SHA1),
    _SHA256: ("sha256", hashes.SHA256),
    0x000C: ("sha384", hashes.SHA384),
}

# Part 2, section 8.3: the attributes of an object.
_USER_WITH_AUTH, _NO_DA, _RESTRICTED, _DECRYPT, _SIGN = 1 << 6, 1 << 10, 1 << 16, 1 << 17, 1 << 18

_EXPONENT = 65537  # of a key whose own field is 0
_KEY_BITS = range(2048, 4097)
_AES_BITS = 128, 192, 256
_BLOCK = 16

_INNER_KEY_BYTES = 16  # AES-128: the SDKs take its length from the key


class TpmError(ValueError):
    """Bytes are not the public area of a key that the service can seal something for."""


class _Fields:
    """The fields of a structure, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def block(self) -> bytes:
        """Return bytes behind their length."""
        return self._take(self.number(2))

    def end(self) -> None:
        if self._data:
            raise TpmError(f"it is malformed: {len(self._data)} bytes too many")

    def _take(self, size: int) -> bytes:
        if len(self._data) < size:
            raise TpmError("it is malformed: it ends too early")
        taken, self._data = self._data[:size], self._data[size:]
        return taken


class StorageKey(NamedTuple):
    """The public area of a key by which a TPM unseals: its endorsement key, or its root key.

    Args:
        name: the name of the object (Part 1, section 16).
        hash_code: the hash that belongs to it.
        cipher_bits: the length of the AES keys that it protects.
        key: the RSA key.
    """

    name: bytes
    hash_code: int
    cipher_bits: int
    key: rsa.RSAPublicKey

    @classmethod
    def parse(cls, data: bytes) -> StorageKey:
        """Parse a TPM2B_PUBLIC (Part 2, section 12.2).

        Raises:
            TpmError: it is malformed, or another kind of key.
        """
        try:
            whole = _Fields(data)
            area = whole.block()
            whole.end()
            fields = _Fields(area)
            kind, hash_code, attributes = fields.number(2), fields.number(2), fields.number(4)
            fields.block()  # the policy by which it can be used
            if kind != _RSA or hash_code not in _HASHES:
                raise TpmError("it is not an RSA key with SHA-1, SHA-256 or SHA-384")
            if attributes & (_RESTRICTED | _DECRYPT) != _RESTRICTED | _DECRYPT:
                raise TpmError("it is not a restricted key for decryption")
            cipher, bits, mode = fields.number(2), fields.number(2), fields.number(2)
            if cipher != _AES or bits not in _AES_BITS or mode != _CFB:
                raise TpmError("it does not use AES in CFB mode")
            if fields.number(2) != _NULL:
                raise TpmError("it has a scheme: a storage key has none")
            key_bits, exponent = fields.number(2), fields.number(4) or _EXPONENT
            modulus = int.from_bytes(fields.block(), "big")
            fields.end()
            if modulus % 2 == 0:
                raise TpmError("it is malformed: its modulus is even")
            if key_bits not in _KEY_BITS or modulus.bit_length() != key_bits:
                raise TpmError(f"its length is not {key_bits} bits, or not from 2048 to 4096")
            key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        except TpmError:
            raise
        except (ValueError, UnsupportedAlgorithm) as error:
            raise TpmError(f"it is malformed: {error}") from None
        return cls(_name(hash_code, area), hash_code, bits, key)


def seal(endorsement: StorageKey, root: StorageKey, key: bytes) -> bytes:
    """Seal a key for HMAC-SHA256: the TPM with both other keys can import it, and sign with it.

    The TPM unseals a cipher key by its endorsement key (TPM2_ActivateCredential), and imports the
    key below its root key by that (TPM2_Import).

    Args:
        endorsement: the endorsement key of the TPM.
        root: its storage root key.
        key: the key.

    Returns:
        What the SDKs call the authentication key.
    """
    inner_key = secrets.token_bytes(_INNER_KEY_BYTES)
    credential, secret = _make_credential(endorsement, root.name, inner_key)
    seed = secrets.token_bytes(hashlib.sha256().digest_size)
    # Part 1, section 27.5.3: what the public area says of a key that is not shown.
    unique = hashlib.sha256(seed + key).digest()
    attributes = _USER_WITH_AUTH | _NO_DA | _SIGN
    public = b"".join(
        (
            *(_numbers(_KEYED_HASH, _SHA256), attributes.to_bytes(4, "big"), _sized(b"")),
            *(_numbers(_HMAC, _SHA256), _sized(unique)),
        )
    )
    # Part 2, section 12.3: type, password, seed, key.
    sensitive = _sized(_numbers(_KEYED_HASH) + _sized(b"") + _sized(seed) + _sized(key))
    duplicate, wrap_secret = _duplicate(root, _name(_SHA256, public), sensitive, inner_key)
    blocks = credential, secret, duplicate, wrap_secret, public, b""
    return b"".join(map(_sized, blocks))


def _make_credential(protector: StorageKey, name: bytes, credential: bytes) -> tuple[bytes, bytes]:
    """Return a sealed credential and its secret, as TPM2_MakeCredential does (Part 1, 24)."""
    seed, secret = _new_seed(protector, b"IDENTITY")
    return _protect(protector, seed, name, _sized(credential)), secret


def _duplicate(
    parent: StorageKey, name: bytes, sensitive: bytes, inner_key: bytes
) -> tuple[bytes, bytes]:
    """Return a sealed object and its secret, as TPM2_Duplicate does (Part 1, section 23.3)."""
    integrity = hashlib.sha256(sensitive + name).digest()
    inner = _encrypt(inner_key, _sized(integrity) + sensitive)
    seed, secret = _new_seed(parent, b"DUPLICATE")
    return _protect(parent, seed, name, inner), secret


def _protect(protector: StorageKey, seed: bytes, name: bytes, content: bytes) -> bytes:
    """Encrypt and sign something for an object (Part 1, sections 22.4 and 24.4)."""
    hash_name, _ = _HASHES[protector.hash_code]
    bits = 8 * hashlib.new(hash_name).digest_size
    encrypted = _encrypt(_derive(hash_name, seed, b"STORAGE", name, protector.cipher_bits), content)
    signing_key = _derive(hash_name, seed, b"INTEGRITY", b"", bits)
    return _sized(hmac.digest(signing_key, encrypted + name, hash_name)) + encrypted


def _new_seed(protector: StorageKey, label: bytes) -> tuple[bytes, bytes]:
    """Return a seed, and the seed for the owner of the key alone (Part 1, appendix B.10)."""
    hash_name, algorithm = _HASHES[protector.hash_code]
    seed = secrets.token_bytes(hashlib.new(hash_name).digest_size)
    scheme = padding.OAEP(padding.MGF1(algorithm()), algorithm(), label + b"\0")
    return seed, protector.key.encrypt(seed, scheme)


def _derive(hash_name: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Derive a key: KDFa (Part 1, section 11.4.10.2)."""
    derived, counter = b"", 0
    while 8 * len(derived) < bits:
        counter += 1
        parts = counter.to_bytes(4, "big"), label, b"\0", context, bits.to_bytes(4, "big")
        derived += hmac.digest(key, b"".join(parts), hash_name)
    return derived[: bits // 8]


def _encrypt(key: bytes, content: bytes) -> bytes:
    """Encrypt with AES in CFB mode, from zeros on.

    The mode is written out: `cryptography` moved its own to another module in between.
    """
    blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - see above
    encrypted, last = b"", bytes(_BLOCK)
    for start in range(0, len(content), _BLOCK):
        mask = blocks.update(last)
        last = bytes(a ^ b for a, b in zip(content[start : start + _BLOCK], mask, strict=False))
        encrypted += last
    return encrypted


def _name(hash_code: int, area: bytes) -> bytes:
    return _numbers(hash_code) + hashlib.new(_HASHES[hash_code][0], area).digest()


def _numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content
