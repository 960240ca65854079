"""JSON as .NET reads it: a check of the text that a device answers with.

A real hub checks such a text with a lenient parser, and passes it on as it is. Which texts pass is
known for single quotes only. Here it is what Newtonsoft.Json accepts (its source:
JsonTextReader), without constructors and empty elements: comments, single quotes, names without
quotes, a comma at the end, `NaN`, `undefined`, and numbers such as `.5`, `007` and `0x1F`.
"""

from __future__ import annotations

import re

import orjson

_ESCAPED = r"\\(?:[btnfr\\\"'/]|u[0-9a-fA-F]{4})"
_TOKEN = re.compile(
    rf"""
    (?:\s++|/\*.*?\*/|//[^\r\n]*+)*+
    (?:(?P<mark>[{{}}\[\],:])
      |(?P<string>"(?:[^"\\]++|{_ESCAPED})*+"|'(?:[^'\\]++|{_ESCAPED})*+')
      |(?P<word>[\w$.+-]++)
      |(?P<end>\Z)
    )
    """,
    re.DOTALL | re.VERBOSE,
)
_SCALAR = re.compile(
    r"""
    true|false|null|undefined|NaN|-?Infinity|0[xX][0-9a-fA-F]+|0[0-7]+
    |(?!0[0-9])-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"[\w$]+")
_CLOSING = {"{": "}", "[": "]"}


def accepts(data: bytes) -> bool:
    """Return whether a text is one JSON value, for a lenient reader."""
    try:
        orjson.loads(data)  # nearly every text is JSON
    except orjson.JSONDecodeError:
        try:
            return _accepts(data.decode())
        except UnicodeDecodeError:
            return False
    return True


def _accepts(text: str) -> bool:
    """Check token by token; a text can nest as deep as it is long."""
    open_: list[str] = []  # the marks that close the objects and arrays around the next token
    expected, position = "value", 0
    while token := _TOKEN.match(text, position):
        kind, position = token.lastgroup, token.end()
        found = token[kind or ""]
        if kind == "end":
            return expected == "next" and not open_
        if kind == "mark":
            if found in _CLOSING and expected == "value":
                open_.append(_CLOSING[found])
                expected = "name" if found == "{" else "value"
            elif open_[-1:] == [found] and expected in (
                "next",
                "name" if found == "}" else "value",
            ):
                open_.pop()
                expected = "next"
            elif found == ":" and expected == "colon":
                expected = "value"
            elif found == "," and expected == "next" and open_:
                expected = "name" if open_[-1] == "}" else "value"
            else:
                return False
        elif expected == "name" and (kind == "string" or _NAME.fullmatch(found)):
            expected = "colon"
        elif expected == "value" and (kind == "string" or _SCALAR.fullmatch(found)):
            expected = "next"
        else:
            return False
    return False
