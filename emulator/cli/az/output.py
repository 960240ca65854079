"""Documents as JSON, a table or lines with tabs. No text of a device can write to the terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from unicodedata import category, east_asian_width

from emulator.cli.output import OutputError, say
from emulator.cli.parser import UsageError

Picker = Callable[[Any], Any]

# A key, a text, a number or a word of JSON, for colours.
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b')
_KEY, _TEXT, _OTHER, _PLAIN = "\033[34m", "\033[32m", "\033[33m", "\033[0m"
_EMPTY = ""


def picker(expression: str | None) -> Picker:
    """Return what picks the wanted part of a document: a JMESPath query, or all.

    Raises:
        UsageError: the query is invalid.
    """
    if expression is None:
        return lambda document: document
    # Imported here: few commands use it.
    import jmespath
    from jmespath.exceptions import JMESPathError

    def search(document: Any) -> Any:
        try:
            return compiled.search(document, options)
        except JMESPathError as error:
            raise UsageError(f"Invalid --query: {_line(error)}") from None

    try:
        compiled = jmespath.compile(expression)
        options = jmespath.Options(dict_cls=OrderedDict)  # the members as the query has them
    except JMESPathError as error:
        raise UsageError(f"Invalid --query: {_line(error)}") from None
    return search


def show(document: Any, form: str, columns: Sequence[str] = ()) -> None:
    """Print a document.

    Args:
        document: what is printed; None prints nothing.
        form: json, jsonc, table, tsv or none.
        columns: the columns of a table; empty for every member that is not an object.

    Raises:
        OutputError
    """
    if document is None or form == "none":
        return
    if form in ("json", "jsonc"):
        try:
            text = harmless(json.dumps(document, ensure_ascii=False, indent=2))
        except RecursionError:
            raise OutputError(
                "Can't write the output: it is nested too deep. Pick a part of it: --query"
            ) from None
        colours = form == "jsonc" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        say(_TOKEN.sub(_coloured, text) if colours else text)
        return
    if isinstance(document, dict) and list(document) == ["value"]:
        document = document["value"]  # how Azure Resource Manager writes a list
    rows = document if isinstance(document, list) else [document]
    lines = _table(rows, columns) if form == "table" else [_tabbed(row) for row in rows]
    if lines:
        say("\n".join(lines))


def harmless(text: str) -> str:
    r"""Escape what does not print, as JSON does (`\u001b`); line feeds stay.

    What a device sends may hold codes that a terminal obeys, also beyond ASCII: C1 controls,
    and marks that turn the direction of text around.
    """
    encoding = sys.stdout.encoding or "utf-8"
    plain = text if text.isprintable() else "".join(map(_escape, text))
    try:
        plain.encode(encoding)
    except UnicodeEncodeError:
        return "".join(each if each.isascii() else _escaped(each) for each in plain)
    return plain


def _escape(character: str) -> str:
    return character if character.isprintable() or character == "\n" else _escaped(character)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) != 0x7F else "\\u007f"


def _coloured(match: re.Match[str]) -> str:
    text, colon = match[1], match[2] or ""
    colour = _OTHER if text is None else _KEY if colon else _TEXT
    return f"{colour}{text or match[0]}{_PLAIN}{colon}"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return harmless(value.replace("\t", "\\t").replace("\n", "\\n"))
    if value is None:
        return _EMPTY
    return str(value) if isinstance(value, bool) else harmless(json.dumps(value))


def _tabbed(row: Any) -> str:
    """Return a line of tsv, as az writes it (source of knack: output).

    An object is the line of its values, by their names unless a query has chosen them. An object
    among them is empty, and a list is its length.
    """
    if isinstance(row, dict):
        names = row if isinstance(row, OrderedDict) else sorted(row)
        row = [row[name] for name in names]
    elif isinstance(row, bool):
        row = str(row).lower()
    values = row if isinstance(row, list) else [row]
    return "\t".join(map(_tabbed_value, values))


def _tabbed_value(value: Any) -> str:
    if isinstance(value, dict):
        return _EMPTY
    if isinstance(value, list):
        return str(len(value))
    return "None" if value is None else _cell(value)


def _table(rows: Sequence[Any], columns: Sequence[str]) -> list[str]:
    """Return the lines of a table. Objects in a row have no column, as in az."""
    objects = [row if isinstance(row, dict) else _columns_of(row) for row in rows]
    names = [name for name in columns if any(name in row for row in objects)] or list(
        dict.fromkeys(
            name
            for row in objects
            for name, value in row.items()
            if not isinstance(value, dict | list)
        )
    )
    if not names:
        return []
    heads = [harmless(name[:1].upper() + name[1:]) for name in names]
    cells = [[_cell(row.get(name)) for name in names] for row in objects]
    widths = [max(map(_width, column)) for column in zip(heads, *cells, strict=True)]
    lines = [heads, ["-" * width for width in widths], *cells]
    return ["  ".join(map(_padded, line, widths)).rstrip() for line in lines]


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if category(each) in ("Mn", "Me") else 2 if east_asian_width(each) in ("W", "F") else 1
        for each in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _columns_of(row: Any) -> dict[str, Any]:
    """Return a row without names as an object, as az names the columns."""
    if isinstance(row, list):
        return {f"Column{number}": value for number, value in enumerate(row, 1)}
    return {"Result": row}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
