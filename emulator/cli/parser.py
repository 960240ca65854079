"""The parser of every command: argparse, with errors of one line that say what to use."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from emulator.cli.output import say

# What argparse says.
_ARGPARSE_NO_VALUE = re.compile(r"argument (--\S+): expected one argument")
_ARGPARSE_VALUE = re.compile(r"argument (--\S+): ignored explicit argument .*", re.DOTALL)
_ARGPARSE_TOO_MANY = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_ARGPARSE_MISSING = re.compile(r"the following arguments are required: (.*)")

_SIMILAR = 0.75  # below, a suggestion is of no help: --verbose for --bogus

# `--device`, `-p`; not the `-1` of `--mqtt-port -1`.
_OPTION = re.compile(r"--.*|-[A-Za-z].*", re.DOTALL)


def program() -> str:
    """Return what the user types to call this program."""
    file = Path(sys.argv[0])
    # Python names the file of a module that runs with -m.
    if file.name == "__main__.py":
        return f"{_typed(Path(sys.executable), 'python')} -m emulator"
    return _typed(file, file.name)


def _typed(file: Path, name: str) -> str:
    """Return the name of a program if a shell finds the program by it, and its path otherwise.

    Without an active venv, `python` is missing, or it is another Python.
    """
    found = shutil.which(name)
    if not file.is_file() or (found is not None and Path(found) == file):
        return name
    # It is elsewhere, or the folder of this process is deleted.
    with contextlib.suppress(ValueError, OSError):
        file = file.relative_to(Path.cwd())
    return shlex.quote(str(file)) if os.name == "posix" else str(file)


class Parser(argparse.ArgumentParser):
    """A parser whose help goes to stdout, and whose errors are one line.

    Args:
        command: the words of the command behind the program, such as `config apply`.
        description: what it does.
        epilog: examples; `%(prog)s` stands for the program with the command.
    """

    def __init__(self, command: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"{program()} {command}".rstrip(),
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=True,
        )

    def parse_known(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse arguments; an unknown option, or anything else, ends the process.

        argparse itself complains about the value of an unknown option first.
        """
        options = [name for name in self._option_string_actions if name.startswith("--")]
        for argument in arguments:
            name = argument.partition("=")[0]
            if name == "--":
                break
            if not _OPTION.fullmatch(name) or name in self._option_string_actions:
                continue
            if not any(each.startswith(name) for each in options):
                self.error(f"Unknown option {name}.{_advice(name, options)}")
        return self.parse_args(arguments)

    def _print_message(self, message: str, file: object = None) -> None:
        # Help goes to stdout.
        say(message.rstrip())

    def error(self, message: str) -> NoReturn:
        """End with one line, as every other error of the command does."""
        message = _ARGPARSE_NO_VALUE.sub(r"\1 needs a value", message)
        message = _ARGPARSE_VALUE.sub(r"\1 takes no value", message)
        message = _ARGPARSE_TOO_MANY.sub(r"Unexpected argument: \1", message)
        message = _ARGPARSE_MISSING.sub(r"\1 is missing", message)
        print(f"emulator: {message.rstrip('.')}. --help shows the options.", file=sys.stderr)
        sys.exit(2)


class Version(argparse.Action):
    """Prints the version, and ends the process."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """See `argparse.Action`."""
        from importlib.metadata import version

        say(f"local-iot-hub {version('local-iot-hub')}")
        parser.exit()


def similar(name: str, names: Collection[str]) -> list[str]:
    """Return the name that was perhaps meant, or nothing."""
    return difflib.get_close_matches(name, names, 1, _SIMILAR)


def _advice(name: str, options: Sequence[str]) -> str:
    found = [each for each in options if name.strip("-") in each] or similar(name, options)
    return f" Use {' or '.join(found)}." if found and name.startswith("--") else ""
