"""The mistakes in a configuration file: each with its place, its value and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from emulator.errors import StartError

# Below, a suggestion is of no help.
_SIMILAR = 0.6
_SHOWN = 60  # characters of a value
_MASK = "***"

# What msgspec says, with the place at its end.
_PLACE = re.compile(r"(?P<text>.*?)(?: - at `\$(?P<place>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_EXPECTED = re.compile(r"Expected `(\w+)(?: \| \w+)*`, got .*")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")

_KINDS = {
    "str": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "object": "an object",
    "array": "a list",
}


class Mistake(NamedTuple):
    """A mistake.

    Args:
        place: where it stands: `devices[2].tags`; empty for the file as a whole.
        text: what is wrong, the value, and what to do.
    """

    place: str
    text: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.place}: {self.text}" if self.place else self.text


class ConfigError(StartError):
    """A configuration file can't be used: one line for each mistake.

    Args:
        mistakes: the mistakes.
        file: the name of the file; empty if it came in a request.
    """

    def __init__(self, mistakes: Sequence[Mistake], file: object = "") -> None:
        self.mistakes = tuple(mistakes)
        start = f"{file}: " if file else ""
        super().__init__("\n".join(f"{start}{each}" for each in mistakes))


def unknown(name: str, known: Collection[str]) -> str:
    """Say that a member is unknown, and which name was perhaps meant."""
    lower = {each.lower(): each for each in known}
    similar = difflib.get_close_matches(name.lower(), lower, 1, _SIMILAR)
    advice = lower[similar[0]] if similar else f"one of {', '.join(sorted(known))}"
    return f"Unknown member {name[:_SHOWN]!r}. Use {advice}."


def convert(value: object, kind: Any, place: str, mistakes: list[Mistake]) -> Any:
    """Convert a value to a type; on a mistake, note it and return None."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        mistakes.append(_explain(error, value, kind, place))
        return None


def shown(value: object, place: str = "") -> str:
    """Return a value for an error; a key is masked."""
    if place.lower().endswith("key"):
        return _MASK
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _explain(error: msgspec.ValidationError, value: Any, kind: Any, place: str) -> Mistake:
    found = _PLACE.fullmatch(str(error))
    assert found is not None  # noqa: S101 - the pattern matches every text
    text, below = found["text"], found["place"] or ""
    kinds = _alternatives(inspect.type_info(kind))
    for name, position in _STEP.findall(below):
        value = value[name] if name else value[int(position)]
        kinds = [each for kind in kinds for each in _below(kind, name)]
    place += below
    if (match := _UNKNOWN.fullmatch(text)) is not None:
        return Mistake(place, unknown(match[1], [name for kind in kinds for name in _names(kind)]))
    if (match := _MISSING.fullmatch(text)) is not None:
        return Mistake(place, f"The member {match[1]!r} is missing. Add it.")
    choices = [
        str(each) for kind in kinds if isinstance(kind, inspect.LiteralType) for each in kind.values
    ]
    if choices:
        wanted = f"{', '.join(choices[:-1])} or {choices[-1]}"
    elif (match := _EXPECTED.fullmatch(text)) is not None:
        wanted = _KINDS.get(match[1], match[1])
    else:
        wanted = f"another one ({text})"
    return Mistake(place, f"Invalid value {shown(value, place)}: use {wanted}.")


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    """Return the types that a value can have, without their descriptions."""
    if isinstance(kind, inspect.Metadata):
        return _alternatives(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [found for each in kind.types for found in _alternatives(each)]
    return [kind]


def _below(kind: inspect.Type, name: str) -> list[inspect.Type]:
    """Return the types of a member of a struct; without a name, those of the entries of a list."""
    if isinstance(kind, inspect.StructType) and name:
        return [
            found
            for each in kind.fields
            if each.encode_name == name
            for found in _alternatives(each.type)
        ]
    if isinstance(kind, inspect.VarTupleType) and not name:
        return _alternatives(kind.item_type)
    return []


def _names(kind: inspect.Type) -> list[str]:
    return [each.encode_name for each in getattr(kind, "fields", ())]
