"""Validation of twins: names, values, depth and size.

The rules and texts are from IoT Hub docs: device twins, and from a real hub; the others are from
EdgeHub (Azure IoT Edge, source), which repeats the checks of the hub.
"""

from __future__ import annotations

import math
import re
from typing import Any

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, DeviceModelMaxPropertiesExceeded
from emulator.hub.core.json import JsonObject, WrittenNumber, dumps

# C0, DEL and C1, as in .NET's Char.IsControl.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The docs allow '#', but a real hub refuses it, and EdgeHub says that the service reserves it.
_FORBIDDEN_IN_KEYS = re.compile(r"[\x00-\x1f\x7f-\x9f .$#]")
_SECTIONS = {
    "tags": ("Tags", limits.TWIN_TAGS_BYTES),
    "desired": ("Properties.Desired", limits.TWIN_DESIRED_BYTES),
    "reported": ("Properties.Reported", limits.TWIN_REPORTED_BYTES),
}
# The hub's own members of a section. Services send them back with a twin that they received.
_SYSTEM_MEMBERS = ("$metadata", "$version")


def size(value: object) -> int:
    """Return the size of a value in bytes, as twin limits count it (IoT Hub docs: device twins).

    Keys and strings are UTF-8 without control characters, a number has 8 bytes, a boolean 4. The
    docs do not name arrays; here the size of an array is the sum of its elements. They do not name
    long numbers either, of which the hub keeps every digit; here each digit counts.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return len(value)
        return len(_CONTROLS.sub("", value).encode())
    if isinstance(value, dict):
        return sum([size(key) + size(member) for key, member in value.items()])
    if isinstance(value, list):
        return sum([size(element) for element in value])
    if isinstance(value, WrittenNumber) and len(value.text) > limits.TWIN_NUMBER_LENGTH:
        return len(value.text)
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


def check_part(name: str, part: object, *, nulls: bool = True) -> JsonObject:
    """Check a part of a write.

    Args:
        name: `tags`, `desired` or `reported`.
        part: the part.
        nulls: whether a null removes a member; a replacement cannot have one.

    Returns:
        The part; from a service without the hub's own members at the root of `desired`.

    Raises:
        ArgumentInvalid: the part has an invalid name or value.
        DeviceModelMaxPropertiesExceeded: the part is far too large.
    """
    changes = check_object(part, f"'{name}'")
    if name == "desired":
        changes = {key: value for key, value in changes.items() if key not in _SYSTEM_MEMBERS}
    _check_text(name, changes, limits.TWIN_PATCH_FACTOR)  # before the slow checks
    _check_members(changes, 1, nulls)
    return changes


def _check_members(members: JsonObject, level: int, nulls: bool) -> None:
    for key, value in members.items():
        _check_key(key)
        if value is None and not nulls:
            raise ArgumentInvalid(
                f"Value of Property or Tag cannot be null. Error in Property/Tag {key}"
            )
        _check_value(key, value, level, nulls)


def _check_key(key: str) -> None:
    # Also for a member that the patch removes: a twin cannot have it.
    if _utf8_length(key) > limits.TWIN_KEY_BYTES:
        raise ArgumentInvalid(
            f"Length of property name {key[:10]}.. exceeds maximum length of "
            f"{limits.TWIN_KEY_BYTES}"
        )
    if _FORBIDDEN_IN_KEYS.search(key):
        raise ArgumentInvalid(
            f"Property or Tag name has invalid characters. Error in Property/Tag {key}. "
            "Must not contain Control Characters, '.', '$', '#', or ' '."
        )


def _check_value(key: str, value: Any, level: int, nulls: bool) -> None:
    """Check the value of the member `key`, or an element of its array.

    `level` is the depth of the value, from 1. An array has a level too, and so have the arrays and
    objects in it (EdgeHub).
    """
    if isinstance(value, str):
        _check_length(key, _utf8_length(value))
    elif isinstance(value, (dict, list)):
        if level > limits.TWIN_DEPTH:
            raise ArgumentInvalid(
                f"Nested depth of twin property exceeds {limits.TWIN_DEPTH}. "
                f"Error in Property/Tag {key}"
            )
        if isinstance(value, dict):
            _check_members(value, level + 1, nulls)
        else:
            for element in value:
                if element is None:
                    raise ArgumentInvalid(
                        f"Arrays cannot contain 'null' as value. Error in Property/Tag {key}"
                    )
                _check_value(key, element, level + 1, nulls=False)
    elif isinstance(value, (int, float)):  # or a boolean, which is in the range
        _check_number(key, value)


def _check_length(key: str, length: int) -> None:
    if length > limits.TWIN_STRING_BYTES:
        raise ArgumentInvalid(
            f"Property or Tag value should be maximum {limits.TWIN_STRING_BYTES} bytes. "
            f"Error in Property/Tag {key}"
        )


def _check_number(key: str, number: float) -> None:
    # As in .NET's parser, a point or an exponent makes a double, which can be larger than any
    # integer: `1e20`, `5e15`. 30 digits without a point are an integer that is out of range.
    if isinstance(number, WrittenNumber):
        _check_length(key, len(number.text))
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
        DeviceModelMaxPropertiesExceeded: the section is too large.
    """
    _check_text(name, values, limits.TWIN_TEXT_FACTOR)
    if size(values) > _SECTIONS[name][1]:
        raise _too_large(name)


def _check_text(name: str, values: JsonObject, factor: int) -> None:
    if len(dumps(values)) > factor * _SECTIONS[name][1]:
        raise _too_large(name)


def _too_large(name: str) -> DeviceModelMaxPropertiesExceeded:
    title, maximum = _SECTIONS[name]
    return DeviceModelMaxPropertiesExceeded(f"'{title}' size should be less than {maximum} bytes.")


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
