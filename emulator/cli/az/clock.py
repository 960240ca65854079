"""`clock`: the clock of the hub that runs, shown and advanced."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az import values
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub

_CLOCK = "_emulator", "clock"
_COLUMNS = ("now", "advancedBy")

_DURATION = o.argument(
    "duration",
    type=values.duration,
    help="how far: seconds, a number with a unit (90s, 15m, 12h, 7d), or ISO 8601 (P1DT12H)",
)
_NOTES = """\
It returns when everything that became due is done: tokens and messages expire,
direct methods time out, scheduled jobs start. The clock goes forward only;
reset sets it to the time of this machine.
"""


def show(hub: Hub, _: argparse.Namespace) -> Any:
    """Return the time of the hub, and how many seconds it is ahead of the machine."""
    return hub.get(*_CLOCK)


def advance(hub: Hub, options: argparse.Namespace) -> Any:
    """Advance the clock; return what it shows then."""
    return hub.send("POST", *_CLOCK, body={"advance": options.duration}).json()


COMMANDS: tuple[Command, ...] = (
    Command(
        "clock advance",
        "advance the clock of the hub",
        advance,
        (_DURATION,),
        "1h",
        _COLUMNS,
        notes=_NOTES,
    ),
    Command(
        "clock show",
        "show the time of the hub, and how many s it is ahead of this machine",
        show,
        example="--query now -o tsv",
        columns=_COLUMNS,
        alone=True,
    ),
)
