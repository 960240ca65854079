"""`--set` and `--remove`: members of a document, by their paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emulator.cli.az.values import parse_json
from emulator.cli.parser import UsageError


def apply(
    document: dict[str, Any], sets: Iterable[tuple[str, str]], removes: Iterable[str]
) -> dict[str, Any]:
    """Set and remove members of a document.

    Args:
        document: it is changed.
        sets: paths such as `tags.floor`, each with a value: JSON, or else a text.
        removes: paths.

    Returns:
        the document.

    Raises:
        UsageError: a path leads nowhere.
    """
    for path, text in sets:
        parent, name = _parent(document, path)
        parent[name] = _value(text)
    for path in removes:
        parent, name = _parent(document, path)
        if name not in parent:
            raise UsageError(f"Nothing to remove at {path!r}. Its parent has: {_names(parent)}")
        del parent[name]
    return document


def patch(sets: Iterable[tuple[str, str]], removes: Iterable[str]) -> dict[str, Any]:
    """Return the patch of a twin that sets members, and removes others by null.

    Raises:
        UsageError: a path leads nowhere.
    """
    return apply({}, [*sets, *((path, "null") for path in removes)], ())


def _parent(document: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *names, last = path.split(".")
    if not all((*names, last)):
        raise UsageError(f"Invalid path {path!r}. Use names with dots, such as tags.floor")
    for name in names:
        found = document.get(name)
        document = document.setdefault(name, {}) if found is None else found
        if not isinstance(document, dict):
            raise UsageError(f"Invalid path {path!r}: {name} is not an object")
    return document, last


def _value(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def _names(document: dict[str, Any]) -> str:
    return ", ".join(document) or "nothing"
