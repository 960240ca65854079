"""Tables of expressions, or other texts, and their values."""

import json
from typing import Any

from emulator.hub.core.json import UNDEFINED


def cases(table: str) -> list[tuple[str, Any]]:
    """Read a table: in each line a value as JSON, or `undefined`, and the texts that have it.

    Semicolons separate the texts. A line that begins with # is a comment.
    """
    rows = [line.split(maxsplit=1) for line in table.splitlines() if line[:1] not in ("", "#")]
    return [
        (text.strip(), UNDEFINED if expected == "undefined" else json.loads(expected))
        for expected, texts in rows
        for text in texts.split(";")
    ]
