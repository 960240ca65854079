"""`status`: the hub that runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from emulator.cli import hubs
from emulator.cli.output import say
from emulator.cli.parser import Parser

_DESCRIPTION = f"""\
Show the hub that runs: where it is, since when, its devices and active faults.

{hubs.FINDING}
The exit status is 1 if no hub runs.
"""
_EPILOG = """\
examples:
  %(prog)s
      the hub of this machine
  %(prog)s --json
      the same, for a program
"""


def main(arguments: Sequence[str]) -> int:
    """Print the state of a hub.

    Raises:
        ClientError
    """
    parser = Parser("status", _DESCRIPTION, _EPILOG)
    hubs.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for a program")
    options = parser.parse_known(arguments)
    info = hubs.connect(options).get("/_emulator/info")
    say(json.dumps(info) if options.json else "\n".join(_lines(info)))
    return 0


def _lines(info: dict[str, Any]) -> list[str]:
    devices, ahead = info["devices"], info["clock"]["advancedBy"]
    ports = ", ".join(f"{name} {port}" for name, port in info["ports"].items())
    clock = f"{ahead:g} s ahead of this machine" if ahead else "as this machine"
    return [
        f"hub      {info['hostName']}, version {info['version']}",
        f"since    {info['startedTime']}",
        f"ports    {ports}",
        f"devices  {devices['totalDeviceCount']}, {devices['connectedDeviceCount']} connected",
        f"clock    {info['clock']['now']}, {clock}",
        f"faults   {len(info['faults']) or 'none'}",
        *(f"         {json.dumps(each)}" for each in info["faults"]),
    ]
