"""Symmetric keys: those of identities and of shared access policies."""

from __future__ import annotations

import base64
import re
import secrets

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject

# A key that the hub generates has 44 characters (IoT Hub docs: control access with SAS).
_GENERATED_KEY_BYTES = 32

_SECRET = re.compile(r"""((?:SharedAccessKey|\bsig)\s*=\s*["']?)[^;&\s"']+""", re.IGNORECASE)
_MASK = "***"


class SymmetricKeys(Struct, frozen=True):
    """The two keys of an identity or a policy; a token can be signed with either of them.

    Args:
        primary: base64 text, unchanged.
        secondary: base64 text, unchanged.

    Raises:
        ArgumentInvalid: a key is not base64, or does not have 16 to 64 bytes.
    """

    primary: str
    secondary: str

    def __post_init__(self) -> None:
        for key in (self.primary, self.secondary):
            try:
                length = len(decode_key(key))
            except ValueError:
                # Without its cause, which can contain the key.
                raise ArgumentInvalid("Invalid device key: not base64") from None
            if length not in limits.KEY_BYTES:
                raise ArgumentInvalid("Invalid device key length")

    def __repr__(self) -> str:
        # A log line or a traceback must not show a key.
        return f"{type(self).__name__}(primary={_MASK}, secondary={_MASK})"

    @classmethod
    def generate(cls, size: int = _GENERATED_KEY_BYTES) -> SymmetricKeys:
        """Create two random keys of so many bytes."""
        primary, secondary = (
            base64.b64encode(secrets.token_bytes(size)).decode() for _ in range(2)
        )
        return cls(primary, secondary)

    @classmethod
    def from_request(cls, primary: object, secondary: object) -> SymmetricKeys:
        """Return the keys of a request body, or new keys if both are absent.

        None and "" both count as absent: SDK users pass "" to get new keys. The texts of the errors
        were seen on a real hub.

        Raises:
            ArgumentInvalid: one key is absent, or a key is invalid.
        """
        absent = [key is None or key == "" for key in (primary, secondary)]
        if all(absent):
            return cls.generate()
        if any(absent):
            raise ArgumentInvalid("Either no keys or both keys can be set")
        if not isinstance(primary, str) or not isinstance(secondary, str):
            raise ArgumentInvalid("Invalid device key: not a string")
        return cls(primary, secondary)


def key_document(keys: SymmetricKeys | None) -> JsonObject:
    """Return two keys as members of a JSON document; they are null without keys."""
    primary, secondary = (keys.primary, keys.secondary) if keys else (None, None)
    return {"primaryKey": primary, "secondaryKey": secondary}


def mask_key(connection_string: str) -> str:
    """Return the text without its secrets: `SharedAccessKey=***`, and `sig=***` in a SAS token."""
    return _SECRET.sub(rf"\1{_MASK}", connection_string)


def decode_key(key: str) -> bytes:
    """Decode base64; raise ValueError if it is invalid."""
    return base64.b64decode(key, validate=True)
