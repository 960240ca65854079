"""The command: `python -m emulator` and `iothub-emulator`.

argparse, because typer would take a fifth of the start to import.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 for a failure, 2 for an invalid option."""
    # The imports of a start make little garbage, and to look for it takes 3 % of the start. So they
    # stand below this line. See `collect_garbage` in process.py for when it is on again.
    gc.disable()
    from emulator.cli.options import note_variables, parse
    from emulator.errors import StartError
    from emulator.event_loop import run

    try:
        command = parse(arguments)
        _log(verbose=command.verbose)
        if command.name == "tutorial":
            from emulator.cli.tutorial import play

            return run(play(command.settings))
        from emulator.cli.start import serve

        return run(serve(command.settings))
    except StartError as error:
        print(f"emulator: {error}{note_variables()}", file=sys.stderr)
        return 1


def _log(*, verbose: bool) -> None:
    """Log to stderr: warnings of all libraries, and connections if wanted."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("emulator").setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("asyncio").addFilter(_is_worth_saying)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Leave out what asyncio logs thousands of times, where uvloop logs nothing.

    The first message is about connections that wait while no more files can be opened; they are
    accepted once others have ended. The second is about peers that left before they had read
    everything.
    """
    noise = ("socket.accept() out of system resource", "socket.send() raised exception")
    return not record.getMessage().startswith(noise)
