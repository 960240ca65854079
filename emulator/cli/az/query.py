"""`query`: the query language of IoT Hub."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub


def query(hub: Hub, options: argparse.Namespace) -> Any:
    """Return the rows of a query."""
    return hub.query(options.query_command, options.top)


COMMANDS: tuple[Command, ...] = (
    Command(
        "query",
        "query devices, modules and jobs",
        query,
        (o.QUERY, o.ALL_TOP),
        '-q "select deviceId from devices where tags.floor = 1"',
    ),
)
