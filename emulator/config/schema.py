"""The JSON Schema of configuration files, made from the settings and from the types of content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from emulator.config.content import Content
from emulator.config.file import SCHEMA
from emulator.hub.core.json import JsonObject

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {str: "string", int: "integer", bool: "boolean"}


class Setting(Protocol):
    """What a schema shows of a setting: see `emulator.settings.Setting`."""

    @property
    def key(self) -> str:
        """The name in a file."""

    @property
    def help(self) -> str:
        """What the setting does."""

    @property
    def default(self) -> str:
        """The default, as a person reads it."""

    @property
    def many(self) -> bool:
        """Whether there can be several values."""

    @property
    def types_in_file(self) -> tuple[type, ...]:
        """The types of a value in a file."""


def schema(settings: Iterable[Setting]) -> JsonObject:
    """Return the schema of a configuration file with these settings."""
    whole = msgspec.json.schema(Content)
    definitions: dict[str, Any] = whole["$defs"]
    content = definitions.pop("Content")
    return {
        "$schema": _DIALECT,
        "title": "Configuration file of iothub-emulator",
        "type": "object",
        "properties": {
            SCHEMA: {"type": "string", "description": "the URL or path of this schema"},
            **{each.key: _setting(each) for each in settings},
            **content["properties"],
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def _setting(setting: Setting) -> JsonObject:
    types = [_TYPES[each] for each in setting.types_in_file]
    value: JsonObject = {"type": types[0] if len(types) == 1 else types}
    if setting.many:
        value = {"anyOf": [value, {"type": "array", "items": value}]}
    return {"description": f"{setting.help} (default: {setting.default})", **value}
