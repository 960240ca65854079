"""Validation of twins: names, values, depth and size.

The rules and texts are from IoT Hub docs: device twins, and from a real hub; the others are from
EdgeHub (Azure IoT Edge, source), which repeats the checks of the hub.
"""

from __future__ import annotations

import math
import re
from typing import Any

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject, WrittenNumber

# C0, DEL and C1, as in .NET's Char.IsControl.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The docs allow '#', but a real hub refuses it, and EdgeHub says that the service reserves it.
_FORBIDDEN_IN_KEYS = re.compile(r"[\x00-\x1f\x7f-\x9f .$#]")
_MAX_BYTES = {
    "tags": limits.TWIN_TAGS_BYTES,
    "desired": limits.TWIN_DESIRED_BYTES,
    "reported": limits.TWIN_REPORTED_BYTES,
}
# The hub's own members of a section. Clients send them back with a twin that they received.
_SYSTEM_MEMBERS = ("$metadata", "$version")


def size(value: object) -> int:
    """Return the size of a value in bytes, as twin limits count it (IoT Hub docs: device twins).

    Keys and strings are UTF-8 without control characters, a number has 8 bytes, a boolean 4. The
    docs do not name arrays; here the size of an array is the sum of its elements.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return len(value)
        return len(_CONTROLS.sub("", value).encode())
    if isinstance(value, dict):
        return sum([size(key) + size(member) for key, member in value.items()])
    if isinstance(value, list):
        return sum([size(element) for element in value])
    return 4 if isinstance(value, bool) else 8


def check_object(value: object, name: str) -> JsonObject:
    """Return a value that must be an object.

    Raises:
        ArgumentInvalid: the value is not an object.
    """
    if not isinstance(value, dict):
        raise ArgumentInvalid(
            f"Provided json is not a valid 'tags' or 'properties' object: {name} is not an object"
        )
    return value


def check_part(name: str, part: object) -> JsonObject:
    """Check a part of a patch, and return it without the hub's own members at its root."""
    changes = check_object(part, f"'{name}'")
    if name != "tags":
        changes = {key: value for key, value in changes.items() if key not in _SYSTEM_MEMBERS}
    _check_members(changes, level=1, in_array=False)
    return changes


def _check_members(members: JsonObject, level: int, in_array: bool) -> None:
    for key, value in members.items():
        _check_key(key)
        if value is None and in_array:
            raise ArgumentInvalid(f"Property {key} of an object in an array cannot be 'null'")
        _check_value(key, value, level, in_array)


def _check_key(key: str) -> None:
    # Also for a member that the patch removes: a twin cannot have it.
    if _utf8_length(key) > limits.TWIN_KEY_BYTES:
        raise ArgumentInvalid(
            f"Length of property name {key[:10]}.. exceeds maximum length of "
            f"{limits.TWIN_KEY_BYTES}"
        )
    if forbidden := _FORBIDDEN_IN_KEYS.search(key):
        raise ArgumentInvalid(
            f"Property name {key} contains invalid character '{forbidden.group()}'"
        )


def _check_value(key: str, value: Any, level: int, in_array: bool) -> None:
    """Check the value of the member `key`, or an element of its array.

    `level` is the depth of the value, from 1. An array has a level too, and so have the arrays and
    objects in it (EdgeHub).
    """
    if isinstance(value, str):
        if _utf8_length(value) > limits.TWIN_STRING_BYTES:
            raise ArgumentInvalid(
                f"Property or Tag value should be maximum {limits.TWIN_STRING_BYTES} bytes. "
                f"Error in Property/Tag {key}"
            )
    elif isinstance(value, (dict, list)):
        if level > limits.TWIN_DEPTH:
            raise ArgumentInvalid(
                f"Nested depth of twin property exceeds {limits.TWIN_DEPTH}. "
                f"Error in Property/Tag {key}"
            )
        if isinstance(value, dict):
            _check_members(value, level + 1, in_array)
        else:
            for element in value:
                if element is None:
                    raise ArgumentInvalid(
                        f"Arrays cannot contain 'null' as value. Error in Property/Tag {key}"
                    )
                _check_value(key, element, level + 1, in_array=True)
    elif isinstance(value, (int, float)):  # or a boolean, which is in the range
        _check_number(key, value)


def _check_number(key: str, number: float) -> None:
    # As in .NET's parser, a point or an exponent makes a double, which can be larger than any
    # integer: `1e20`, `5e15`. 30 digits without a point are an integer that is out of range.
    if isinstance(number, WrittenNumber):
        integer = not any(character in number.text for character in ".eE")
    else:
        integer = isinstance(number, int)
    if integer and not limits.TWIN_INTEGER_MIN <= number <= limits.TWIN_INTEGER_MAX:
        raise ArgumentInvalid(
            f"Property {key} has an out of bound value. Valid values are between "
            f"{limits.TWIN_INTEGER_MIN} and {limits.TWIN_INTEGER_MAX}"
        )
    # `1e999` is JSON, but a reader would parse it as Infinity, which is not JSON.
    if not math.isfinite(number):
        raise ArgumentInvalid(f"Property {key} has an out of bound value. It is beyond a double")


def check_size(name: str, values: JsonObject) -> None:
    """Check the size of a whole section.

    Raises:
        ArgumentInvalid: the section is too large.
    """
    actual, maximum = size(values), _MAX_BYTES[name]
    if actual > maximum:
        raise ArgumentInvalid(
            f"Twin properties size {actual} exceeds maximum {maximum} in '{name}'"
        )


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
