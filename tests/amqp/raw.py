"""Bytes of AMQP, written down as text."""

from __future__ import annotations

import re


def raw(text: str) -> bytes:
    """Read hexadecimal digits; `{05 …}` is a list of five values, and `{m 02 …}` such a map.

    The size of the list or map is counted here.
    """
    text = text.replace(" ", "")
    while inner := re.search(r"\{(m?)([^{}]*)\}", text):
        code, body = ("c1" if inner[1] else "c0"), inner[2]
        text = f"{text[: inner.start()]}{code}{len(body) // 2:02x}{body}{text[inner.end() :]}"
    return bytes.fromhex(text)


def frame(text: str) -> bytes:
    """Read the rest of a frame behind its size."""
    body = raw(text)
    return (len(body) + 4).to_bytes(4, "big") + body
