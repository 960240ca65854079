"""`restore FILE`: the hub that runs gets the state in a file."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.cli import hubs
from emulator.cli.output import say
from emulator.cli.parser import Parser, named_path
from emulator.errors import ClientError
from emulator.hub.core import limits
from emulator.net import files

_DESCRIPTION = f"""\
Give the hub that runs the state in a file that snapshot wrote. What the hub
has now is lost. Every connection is closed.

{hubs.FINDING}"""
_EPILOG = """\
example:
  %(prog)s before.snapshot
"""


def main(arguments: Sequence[str]) -> int:
    """Restore a snapshot.

    Raises:
        ClientError
    """
    parser = Parser("restore", _DESCRIPTION, _EPILOG)
    parser.add_argument("file", metavar="FILE", type=named_path, help="the file of a snapshot")
    hubs.add_options(parser)
    options = parser.parse_known(arguments)
    try:
        state = files.read_named(options.file, limits.SNAPSHOT_BYTES, any_kind=True)
    except OSError as error:
        raise ClientError(f"Can't read {options.file}: {error.strerror or error}.") from None
    hubs.connect(options).post("/_emulator/restore", state)
    say(f"The hub has the state in {options.file}.")
    return 0
