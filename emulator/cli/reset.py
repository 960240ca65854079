"""`reset`: the hub that runs becomes as it was at its first start."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.cli import hubs
from emulator.cli.output import say
from emulator.cli.parser import Parser

_DESCRIPTION = f"""\
Reset the hub that runs: without the state that it has, and with the
devices of its options and of its configuration file. Every connection is
closed.

{hubs.FINDING}"""
_EPILOG = """\
examples:
  %(prog)s
      everything
  %(prog)s --events
      only the events that devices have sent
"""


def main(arguments: Sequence[str]) -> int:
    """Reset a hub.

    Raises:
        ClientError
    """
    parser = Parser("reset", _DESCRIPTION, _EPILOG)
    parser.add_argument("--events", action="store_true", help="remove only the events")
    hubs.add_options(parser)
    options = parser.parse_known(arguments)
    scope = "events" if options.events else "all"
    hubs.connect(options).post("/_emulator/reset", {"scope": scope})
    say("The hub has no events." if options.events else "The hub is reset.")
    return 0
