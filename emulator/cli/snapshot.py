"""`snapshot FILE`: the state of the hub that runs, as a file."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.cli import hubs
from emulator.cli.output import say
from emulator.cli.parser import Parser, named_path
from emulator.errors import ClientError
from emulator.net import files

_DESCRIPTION = f"""\
Write the state of the hub that runs into a file: identities with their keys,
twins, messages, events. The hub goes on. Only you can read the file. A file of
this name is replaced.

{hubs.FINDING}"""
_EPILOG = """\
example:
  %(prog)s before.snapshot
"""


def main(arguments: Sequence[str]) -> int:
    """Write a snapshot.

    Raises:
        ClientError
    """
    parser = Parser("snapshot", _DESCRIPTION, _EPILOG)
    parser.add_argument("file", metavar="FILE", type=named_path, help="the file to write")
    hubs.add_options(parser)
    options = parser.parse_known(arguments)
    state = hubs.connect(options).request("GET", "/_emulator/snapshot").body
    try:
        files.write_named(options.file, state)
    except OSError as error:
        raise ClientError(f"Can't write {options.file}: {error.strerror or error}.") from None
    say(f"Wrote {len(state)} bytes to {options.file}.")
    return 0
