"""Bearer tokens of Entra ID (IoT Hub docs: control access with Microsoft Entra ID).

The emulator cannot check them: their signer is in the cloud. If a setting says so, it accepts every
text that has the form of such a token. Otherwise it refuses them all.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from emulator.hub.access.policies import Right

# The rights of the role IoT Hub Data Contributor: all that services do, and nothing of devices.
DATA_CONTRIBUTOR = Right.REGISTRY_READ | Right.REGISTRY_WRITE | Right.SERVICE_CONNECT

# RFC 6750, section 2.1; the name of a scheme has no letter case (RFC 9110, section 11.1).
_BEARER = re.compile(r"bearer +(.*)", re.IGNORECASE | re.DOTALL)
# RFC 7519, section 3: a token of three parts in base64url. The signature is not checked.
_JWT = re.compile(r"([\w-]+)\.([\w-]+)\.[\w-]*", re.ASCII)
# How a refusal names the principal: a user by his name, a program by its id. A real hub writes
# names of users (azure-iot-sdk-csharp#3344); for programs its choice is unknown.
_NAMES = ("upn", "unique_name", "preferred_username", "appid", "azp", "oid", "sub")


def bearer_token(authorization: str) -> str | None:
    """Return the token of an `Authorization: Bearer` header; None if it is another scheme."""
    match = _BEARER.fullmatch(authorization)
    return match and match[1]


def principal(token: str) -> str:
    """Return the name of a token's principal.

    Raises:
        ValueError: the token does not have the form of a JWT.
    """
    match = _JWT.fullmatch(token)
    if match is None:
        raise ValueError("the bearer token is not a JWT: it needs three parts in base64url")
    header, claims = (_object(part) for part in match.groups())
    if not isinstance(header.get("alg"), str):
        raise ValueError("the header of the bearer token names no algorithm")
    names = (claims.get(name) for name in _NAMES)
    return next((name for name in names if name and isinstance(name, str)), "unknown")


def _object(part: str) -> dict[str, Any]:
    """Decode a part of a token: a JSON object in base64url, without padding."""
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("a part of the bearer token is not a JSON object in base64url")
    return value
