"""Symmetric keys: those of identities and of shared access policies."""

from __future__ import annotations

import base64
import re
import secrets

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid

# What the hub makes itself: 44 characters of base64 (IoT Hub docs: control access with SAS).
_GENERATED_KEY_BYTES = 32

_SECRET = re.compile(r"""((?:SharedAccessKey|\bsig)\s*=\s*["']?)[^;&\s"']+""", re.IGNORECASE)
_MASK = "***"


class SymmetricKeys(Struct, frozen=True):
    """The two keys of an identity or a policy; either one signs.

    Args:
        primary: base64 text, kept exactly as it was given.
        secondary: likewise.

    Raises:
        ArgumentInvalid: a key is not base64, or is not 16 to 64 bytes long when decoded.
    """

    primary: str
    secondary: str

    def __post_init__(self) -> None:
        for key in (self.primary, self.secondary):
            try:
                length = len(decode_key(key))
            except ValueError:
                # Without the cause: it may hold the key.
                raise ArgumentInvalid("Invalid device key: not base64") from None
            if length not in limits.KEY_BYTES:
                raise ArgumentInvalid("Invalid device key length")

    def __repr__(self) -> str:
        # A log line or a traceback must not show a key.
        return f"{type(self).__name__}(primary={_MASK}, secondary={_MASK})"

    @classmethod
    def generate(cls) -> SymmetricKeys:
        """Make two random keys."""
        primary, secondary = (
            base64.b64encode(secrets.token_bytes(_GENERATED_KEY_BYTES)).decode() for _ in range(2)
        )
        return cls(primary, secondary)

    @classmethod
    def from_request(cls, primary: object, secondary: object) -> SymmetricKeys:
        """Read the keys of a request body; None and "" both count as absent.

        SDK users pass "" for "make me a key". The texts were seen on a real hub.

        Returns:
            the keys given, or new ones if both are absent.

        Raises:
            ArgumentInvalid: only one key is given, or one is no key.
        """
        absent = [key is None or key == "" for key in (primary, secondary)]
        if all(absent):
            return cls.generate()
        if any(absent):
            raise ArgumentInvalid("Either no keys or both keys can be set")
        if not isinstance(primary, str) or not isinstance(secondary, str):
            raise ArgumentInvalid("Invalid device key: not a string")
        return cls(primary, secondary)


def mask_key(connection_string: str) -> str:
    """Give the text without its secrets: `SharedAccessKey=***`, and `sig=***` in a SAS token."""
    return _SECRET.sub(rf"\1{_MASK}", connection_string)


def decode_key(key: str) -> bytes:
    """Decode base64; ValueError if it is none."""
    return base64.b64decode(key, validate=True)
