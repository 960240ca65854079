"""The command: `python -m emulator` and `iothub-emulator`.

argparse, because typer would take a fifth of the start to import. What is imported here at once is
little: Ctrl-C can come at any time, and must not end in a traceback.
"""

from __future__ import annotations

# Not the module signal: it imports enum, which takes 4 ms in which Ctrl-C has no handler.
import _signal as signal  # type: ignore[import-not-found]
import gc
import os
import sys
from collections.abc import Sequence

_OLDEST_PYTHON = (3, 11)
# The exit statuses: as az has them (Azure CLI docs: exit codes); of a program that Ctrl-C ended, as
# shells have it.
_FAILED, _MISSING, _INTERRUPTED = 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status.

    0; 1 for a failure, 2 for an invalid option, 3 for a device or the like that does not exist.
    """
    end_on_ctrl_c()
    _open_closed_files()
    # The imports of a start make little garbage, and to look for it takes 3 % of the start. So they
    # stand below this line. See `collect_garbage` in process.py for when it is on again.
    gc.disable()
    if sys.version_info < _OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        return _fail(f"This is Python {version}. The emulator needs 3.11 or newer.")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "emulator":
            raise
        return _fail(
            f"The package {error.name} is missing in {sys.executable}. Use the Python of the "
            "virtual environment, .venv/bin/python, or install the packages: "
            "pip install -r requirements.txt"
        )


def end_on_ctrl_c() -> None:
    """End this process on Ctrl-C as other programs do, until it has a handler: without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_closed_files() -> None:
    """Open what the caller has closed of stdin, stdout and stderr.

    Else the next file or socket would be in its place: a server must not be what is printed to.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: this one
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(arguments: Sequence[str] | None) -> int:
    from emulator.cli.output import OutputError, discard_output

    try:
        return _command(arguments)
    except OutputError as error:
        discard_output()
        return _fail(str(error))


def _command(arguments: Sequence[str] | None) -> int:
    from emulator.cli.commands import function_of, is_command
    from emulator.cli.parser import UsageError, refuse
    from emulator.errors import ClientError, StartError

    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and is_command(arguments[0]):
            return function_of(arguments[0])(arguments[1:])
        return _start(arguments)
    except UsageError as error:
        refuse(str(error))
    except ClientError as error:
        _fail(str(error))
        is_missing = error.status == 404 and error.code not in ("", "DeviceNotOnline")
        return _MISSING if is_missing else _FAILED
    except StartError as error:
        from emulator.cli.options import note_variables

        return _fail(f"{error.command}{note_variables(error.command)}")


def _start(arguments: Sequence[str]) -> int:
    """Run a hub, or the tutorial."""
    from emulator.cli.log import set_up
    from emulator.cli.options import parse
    from emulator.event_loop import run

    command = parse(arguments)
    set_up(verbose=command.verbose, quiet=command.quiet)
    if command.name == "tutorial":
        from emulator.cli.tutorial import play

        return run(play(command.settings))
    from emulator.cli.start import serve

    return run(serve(command))


def _fail(text: str) -> int:
    from emulator.cli.output import complain

    complain("\n".join(f"emulator: {line}" for line in text.splitlines()))
    return _FAILED
