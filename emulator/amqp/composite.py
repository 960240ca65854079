"""A list with a name, as a record: decoded and checked, and written (section 1.4 of AMQP 1.0)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import zip_longest
from types import NoneType
from typing import Any, ClassVar, NamedTuple, Self, get_args

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import astuple

from emulator.amqp.encoder import encode_list
from emulator.amqp.errors import DecodeError


class Kind(NamedTuple):
    """The type of a field: how a decoded value is checked, and how a value is written.

    Args:
        exact: values of this class need no check.
        read: checks other values.
        write: writes a value.
    """

    exact: type | None
    read: Callable[[Any], Any]
    write: Callable[[Any], bytes]


class Composite(Struct, frozen=True, gc=False):
    """A list with a name (section 1.4); the annotation of each field has its `Kind`."""

    CODE: ClassVar[int]
    NAME: ClassVar[str]

    @classmethod
    def from_fields(cls, values: Any) -> Self:
        """Make a record of a decoded list; a field that is null or left out has its default.

        Raises:
            DecodeError: a field is missing, has another type, or is out of range.
        """
        known = _fields(cls)
        if type(values) is not list or len(values) > len(known):
            raise DecodeError(f"{cls.NAME}: not a list of at most {len(known)} fields")
        fields = []
        for value, ((exact, read, _), default) in zip_longest(values, known):
            if type(value) is exact:
                fields.append(value)
            elif value is not None:
                fields.append(read(value))
            elif default is NODEFAULT:
                raise DecodeError(f"{cls.NAME}: field {len(fields)} is missing")
            else:
                fields.append(default)
        return cls(*fields)

    def to_bytes(self) -> bytes:
        """Write the record with all its fields.

        azure-eventhub reads open, begin, attach and transfer by index, and fails on a shorter list.
        """
        fields = [
            b"\x40" if value is None else write(value)
            for value, ((_, _, write), _) in zip(astuple(self), _fields(type(self)), strict=True)
        ]
        return b"\x00\x53%c%b" % (self.CODE, encode_list(fields, len(fields)))


@functools.cache
def _fields(cls: type[Composite]) -> list[tuple[Kind, Any]]:
    """Return the kind of each field, and its default: NODEFAULT if it is mandatory."""
    found: list[tuple[Kind, Any]] = []
    for field in msgspec.structs.fields(cls):
        hint, default = field.type, field.default
        if NoneType in get_args(hint):
            hint = get_args(hint)[0]
            # The first field of begin and of flow has no default in Python, and can be null.
            default = None
        (kind,) = hint.__metadata__
        found.append((kind, default))
    return found
