"""The members of a request's JSON document, by type. A member that is null counts as missing."""

from __future__ import annotations

from typing import TypeVar

from emulator.hub.core.errors import ArgumentInvalid, DeserializationError
from emulator.hub.core.json import JsonObject

_T = TypeVar("_T")


def document(body: object) -> JsonObject:
    """Return a request's body, which must be an object.

    Raises:
        DeserializationError: it is not an object.
    """
    if not isinstance(body, dict):
        raise DeserializationError
    return body


def text(members: JsonObject, name: str) -> str | None:
    """Return a string, or None if it is missing.

    Raises:
        ArgumentInvalid: the member is not a string.
    """
    return _member(members, name, str, "a string")


def flag(members: JsonObject, name: str) -> bool:
    """Return a boolean; a missing one is false.

    Raises:
        ArgumentInvalid: the member is not a boolean.
    """
    return _member(members, name, bool, "a boolean") or False


def number(members: JsonObject, name: str, allowed: range, default: int) -> int:
    """Return an integer within a range, or the default if it is missing.

    Raises:
        ArgumentInvalid: the member is not such an integer.
    """
    value = members.get(name)
    if value is None:
        return default
    if type(value) is not int or value not in allowed:
        raise ArgumentInvalid(
            f"{name} ({value}) must be within [{allowed.start}; {allowed.stop - 1}]"
        )
    return value


def block(members: JsonObject, name: str) -> JsonObject:
    """Return an object; a missing one is empty.

    Raises:
        ArgumentInvalid: the member is not an object.
    """
    return _member(members, name, dict, "an object") or {}


def texts(members: JsonObject, name: str) -> dict[str, str] | None:
    """Return an object whose members are strings, or None if it is missing.

    Raises:
        ArgumentInvalid: the member is not such an object.
    """
    if members.get(name) is None:
        return None
    value = block(members, name)
    if not all(isinstance(each, str) for each in value.values()):
        raise ArgumentInvalid(f"{name} has a member that is not a string")
    return value


def _member(members: JsonObject, name: str, kind: type[_T], described: str) -> _T | None:
    value = members.get(name)
    if value is not None and not isinstance(value, kind):
        raise ArgumentInvalid(f"{name} is not {described}")
    return value
