"""The bodies of requests of devices."""

from __future__ import annotations

from emulator.dps import limits
from emulator.hub.core import errors
from emulator.hub.core.json import loads


def parse(payload: bytes) -> object:
    """Parse a body, which may be empty: then it is None.

    Raises:
        MessageTooLarge, DeserializationError
    """
    if len(payload) > limits.MESSAGE_BYTES:
        raise errors.MessageTooLarge(f"A message has at most {limits.MESSAGE_BYTES} bytes")
    if not payload.strip():
        return None
    try:
        return loads(payload)
    except ValueError as error:
        raise errors.DeserializationError(f"The payload is not JSON: {error}") from None
