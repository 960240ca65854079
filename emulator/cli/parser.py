"""The parser of every command: argparse, with errors of one line that say what to use."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from emulator.cli.output import complain, say
from emulator.program import program

# What argparse says.
_ARGPARSE_NO_VALUE = re.compile(r"argument (--\S+): expected one argument")
_ARGPARSE_VALUE = re.compile(r"argument (--\S+): ignored explicit argument .*", re.DOTALL)
_ARGPARSE_TOO_MANY = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_ARGPARSE_MISSING = re.compile(r"the following arguments are required: (.*)")

_SIMILAR = 0.75  # below, a suggestion is of no help: --verbose for --bogus

# `--device`, `-p`; not the `-1` of `--mqtt-port -1`.
_OPTION = re.compile(r"--.*|-[A-Za-z].*", re.DOTALL)


class UsageError(Exception):
    """Options that are wrong, alone or together. The text is one line."""


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

    def end_of_options(self, arguments: Sequence[str]) -> int:
        """Return where `--`, or the first word that is neither an option nor its value, stands."""
        actions, at = self._option_string_actions, 0
        while at < len(arguments) and arguments[at] != "--" and _OPTION.fullmatch(arguments[at]):
            name, equals, _ = arguments[at].partition("=")
            short = (each for flag, each in actions.items() if flag.startswith(name))
            meant = actions.get(name) or next(short, None)
            at += 1 if equals or meant is None or meant.nargs == 0 else 2
        return min(at, len(arguments))

    def _print_message(self, message: str, file: object = None) -> None:
        # Help goes to stdout.
        say(message.rstrip())

    def error(self, message: str) -> NoReturn:
        """End with one line, as every other error of the command does."""
        message = _ARGPARSE_NO_VALUE.sub(r"\1 needs a value", message)
        message = _ARGPARSE_VALUE.sub(r"\1 takes no value", message)
        message = _ARGPARSE_TOO_MANY.sub(r"Unexpected argument: \1", message)
        message = _ARGPARSE_MISSING.sub(r"\1 is missing", message)
        refuse(message)


class Version(argparse.Action):
    """Prints the version, and ends the process."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """See `argparse.Action`."""
        from importlib.metadata import version

        say(f"local-iot-hub {version('local-iot-hub')}")
        parser.exit()


def refuse(message: str) -> NoReturn:
    """End this process: its options are wrong."""
    complain(f"emulator: {' '.join(message.split()).rstrip('.')}. --help shows the options.")
    sys.exit(2)


def named(text: str) -> str:
    """Return a text that names something; refuse an empty one, as of a shell's unset variable.

    With an empty id, a path would lead to something else: to all devices, or to the device that
    has the module.

    Raises:
        ArgumentTypeError
    """
    return encodable(_present(text))


def _present(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("The value is empty")
    return text


def encodable(text: str) -> str:
    """Return a text; refuse one with bytes that are not of the encoding of the console.

    Raises:
        ArgumentTypeError
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"The value is not UTF-8: {text!r}") from None
    return text


def named_path(text: str) -> Path:
    """Return the path of a file or folder; refuse an empty one, which would be the present folder.

    Raises:
        ArgumentTypeError
    """
    return Path(_present(text))


def similar(name: str, names: Collection[str]) -> list[str]:
    """Return the name that was perhaps meant, or nothing."""
    return difflib.get_close_matches(name, names, 1, _SIMILAR)


def _advice(name: str, options: Sequence[str]) -> str:
    found = [each for each in options if name.strip("-") in each] or similar(name, options)
    return f" Use {' or '.join(found)}." if found and name.startswith("--") else ""
