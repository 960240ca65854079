"""A command: its words, its options, its function, and an example."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from emulator.cli.az.options import Option
from emulator.cli.az.session import Hub


class Command(Struct, frozen=True):
    """A command.

    Args:
        words: its words, such as `device-identity create`.
        summary: what it does, in one line.
        run: carries it out. It returns the document to print; None prints nothing.
        options: its options, beside those of every command.
        example: the options of an example.
        columns: the columns of a table; empty for every member that is not an object.
        session: what it talks to.
        alone: whether its last word can be left out.
        notes: what its help says above the example; whole lines.
    """

    words: str
    summary: str
    run: Callable[[Any, argparse.Namespace], Any]
    options: tuple[Option, ...] = ()
    example: str = ""
    columns: tuple[str, ...] = ()
    session: type[Hub] = Hub
    alone: bool = False
    notes: str = ""
