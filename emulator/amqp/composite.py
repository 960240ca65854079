"""A list with a name, as a record: decoded and checked, and written (section 1.4 of AMQP 1.0)."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any, ClassVar, Self, get_args

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import astuple

from emulator.amqp.encoder import encode_list
from emulator.amqp.errors import DecodeError


class Kind(Struct, frozen=True):
    """The type of a field: how a decoded value is checked, and how a value is written.

    Args:
        exact: values of this class need no check.
        read: checks other values.
        write: writes a value.
    """

    exact: type | None
    read: Callable[[Any], Any]
    write: Callable[[Any], bytes]


class Composite(Struct, frozen=True):
    """A list with a name (section 1.4)."""

    CODE: ClassVar[int]
    NAME: ClassVar[str]
    KINDS: ClassVar[tuple[Kind, ...]]

    @classmethod
    def from_fields(cls, values: Any) -> Self:
        """Make a record of a decoded list; a field that is null or left out has its default.

        Raises:
            DecodeError: a field is missing, has another type, or is out of range.
        """
        schema = _SCHEMAS.get(cls) or _schema(cls)
        readers = schema.readers
        if type(values) is not list or len(values) > len(readers):
            raise DecodeError(f"{cls.NAME}: not a list of at most {len(readers)} fields")
        fields = []
        for value, (exact, read, default) in zip(values, readers, strict=False):
            if type(value) is exact:
                fields.append(value)
            elif value is not None:
                fields.append(read(value))
            elif default is NODEFAULT:
                raise DecodeError(f"{cls.NAME}: field {len(fields)} is missing")
            else:
                fields.append(default)
        if len(fields) < schema.minimum:
            raise DecodeError(f"{cls.NAME}: field {len(fields)} is missing")
        return cls(*fields)

    def to_bytes(self) -> bytes:
        """Write the record with all its fields.

        azure-eventhub reads open, begin, attach and transfer by index, and fails on a shorter list.
        """
        writers = (_SCHEMAS.get(type(self)) or _schema(type(self))).writers
        if not writers:
            return b"\x00\x53%c\x45" % self.CODE
        fields = [
            b"\x40" if value is None else write(value)
            for write, value in zip(writers, astuple(self), strict=True)
        ]
        return b"\x00\x53%c%b" % (self.CODE, encode_list(fields, len(fields)))


class _Schema(Struct, frozen=True):
    """How the fields of a class are read and written.

    Args:
        readers: an exact class, a check, and the default: NODEFAULT where a field is mandatory.
        writers: by field.
        minimum: how many fields there are up to the last mandatory one.
    """

    readers: tuple[tuple[type | None, Callable[[Any], Any], Any], ...]
    writers: tuple[Callable[[Any], bytes], ...]
    minimum: int


_SCHEMAS: dict[type[Composite], _Schema] = {}


def _schema(cls: type[Composite]) -> _Schema:
    """Make the schema of a class, when it is used for the first time."""
    # The first field of begin and of flow has no default in Python, and can be null.
    defaults = [
        None if field.required and NoneType in get_args(field.type) else field.default
        for field in msgspec.structs.fields(cls)
    ]
    readers = tuple(
        (kind.exact, kind.read, default) for kind, default in zip(cls.KINDS, defaults, strict=True)
    )
    mandatory = [number for number, value in enumerate(defaults, start=1) if value is NODEFAULT]
    writers = tuple(kind.write for kind in cls.KINDS)
    _SCHEMAS[cls] = _Schema(readers, writers, max(mandatory, default=0))
    return _SCHEMAS[cls]
