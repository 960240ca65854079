"""The members of a request's JSON document: their names, then each by its type.

A member that is null counts as missing.
"""

from __future__ import annotations

from typing import TypeVar

from emulator.hub.core.errors import ArgumentInvalid, DeserializationError, GenericBadRequest
from emulator.hub.core.json import JsonObject

_T = TypeVar("_T")

_SHOWN = 100  # characters of an unknown name that an error repeats


class Form:
    """The members that a document can have.

    A real hub reads their names in any letter case (seen there with one name). What it does with
    two names that differ in letter case only is unknown: the last one counts here, as it does if a
    name is repeated.

    Args:
        names: the members, as the hub writes them.
        closed: whether other members are an error. An open document keeps them, and its reader
            ignores them.
        objects: the members that are objects, each with its form.
    """

    def __init__(self, *names: str, closed: bool = False, **objects: Form) -> None:
        self._names = {name.lower(): name for name in (*names, *objects)}
        self._closed = closed
        self._objects = objects

    def read(self, members: JsonObject) -> JsonObject:
        """Return the members with their names as the hub writes them.

        Raises:
            GenericBadRequest: the form is closed, and a member is unknown.
        """
        result: JsonObject = {}
        for given, value in members.items():
            name = self._names.get(given.lower())
            if name is None and self._closed:
                known = ", ".join(self._names.values())
                raise GenericBadRequest(
                    f"BadRequest: unknown member {given[:_SHOWN]}. Known members are {known}"
                )
            if name in self._objects and isinstance(value, dict):
                value = self._objects[name].read(value)
            result[name or given] = value
        return result


def document(body: object, form: Form) -> JsonObject:
    """Return a request's body, which must be an object, with its names as the hub writes them.

    Raises:
        DeserializationError: it is not an object.
        GenericBadRequest: a member is unknown; see `Form`.
    """
    if not isinstance(body, dict):
        raise DeserializationError
    return form.read(body)


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
