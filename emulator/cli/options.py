"""The command's options: they are made from the table of settings."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from emulator.cli.output import say
from emulator.settings import Setting, SettingError, Settings, flag, read, table, user_folder

# Lines of at most 79 characters: a terminal often has 80.
_DESCRIPTION = """\
A local Azure IoT Hub. Programs on the unmodified Azure SDKs run against it as
they run against the cloud: devices over MQTT or AMQP, services over HTTPS or
AMQP. Only programs on this machine can reach it, unless --host names another
address.
"""

_EPILOG = f"""\
examples:
  %(prog)s
      a hub with one device, myDeviceId
  %(prog)s --device kitchen --device cellar
      a hub with two devices
  %(prog)s --host 127.0.0.2
      a second hub beside the first
  %(prog)s tutorial
      run the tutorial's two scripts, and end

first steps:
  1. Start a hub, in a console of its own. It prints lines that set environment
     variables.
  2. Paste these lines into the console of your program: they are its
     connection strings, and the file of certificates that it must trust.
  3. Start your program there. The hub's console says why it refuses a program.

environment:
  Each option has a variable: IOTHUB_EMULATOR_MQTT_PORT=8884 means
  --mqtt-port 8884. An option beats its variable. Several values have spaces
  between them, several paths "{os.pathsep}".

On loopback the keys are well known and public. On any other address each start
makes new ones, unless --keys names a file such as
{{"iothubowner": "<base64>", "myDeviceId": "<base64>"}}.
"""

# Settings of the command alone.
_VERBOSE = Setting(
    "verbose",
    "",
    "log each connection, request, method, twin change and message to stderr",
    "refusals and warnings",
    parse=flag,
)
_QUIET = Setting("quiet", "", "log warnings only", "refusals and warnings", parse=flag)
_JSON = Setting("json", "", "print JSON for a program", "text", parse=flag)
_IN_MEMORY = Setting(
    "in-memory",
    "",
    "keep nothing: the state of the hub ends with it",
    "the state is kept, except by tutorial",
    parse=flag,
)
_FLAGS = (_VERBOSE, _QUIET, _JSON, _IN_MEMORY)


# What argparse says.
_ARGPARSE_COMMAND = re.compile(r"argument command: invalid choice: ('.*'|\".*\") \(.*\)", re.DOTALL)
_ARGPARSE_NO_VALUE = re.compile(r"argument (--\S+): expected one argument")
_ARGPARSE_VALUE = re.compile(r"argument (--\S+): ignored explicit argument .*", re.DOTALL)

_SIMILAR = 0.75  # below, a suggestion is of no help: --verbose for --bogus

# `--device`, `-p`; not the `-1` of `--mqtt-port -1`.
_OPTION = re.compile(r"--.*|-[A-Za-z].*", re.DOTALL)


class Command(NamedTuple):
    """What a command line asks for.

    Args:
        name: `tutorial`; None is the hub.
        settings: the settings of the hub.
        try_port_443: whether the hub listens on port 443 as well, where the system allows it.
        verbose: whether more is logged.
        quiet: whether less is logged.
        json: whether the hub prints JSON.
    """

    name: str | None
    settings: Settings
    try_port_443: bool
    verbose: bool
    quiet: bool
    json: bool


def parse(arguments: Sequence[str] | None) -> Command:
    """Parse the command line and the environment.

    An invalid option or variable ends the process with one line and exit status 2.

    Args:
        arguments: the command line without the program; None is that of this process.

    Raises:
        StartError: a file can't be used, or the user has no folder.
    """
    parser = _parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    _check_names(parser, arguments)
    options = vars(parser.parse_args(arguments))
    try:
        settings = read(options, os.environ)
        verbose, quiet, json, in_memory = (
            bool(each.read(options[each.key], os.environ.get(each.variable))) for each in _FLAGS
        )
    except SettingError as error:
        parser.error(str(error))
    if verbose and quiet:
        parser.error("--verbose and --quiet contradict each other")
    if json and options["command"]:
        parser.error(f"--json has no use for the command {options['command']}")
    # The command keeps its state by default; an emulator in a program does not.
    folder = settings.data_dir or user_folder()
    keeps = not in_memory and (settings.data_dir is not None or not options["command"])
    settings = replace(
        settings,
        data_dir=folder if keeps else None,
        cert_dir=settings.cert_dir or folder,
    )
    https_port = table()["https_port"]
    chosen = options["https_port"] or os.environ.get(https_port.variable)
    return Command(options["command"], settings, not chosen, verbose, quiet, json)


def note_variables() -> str:
    """Name the variables that are set, for the end of an error; empty without any."""
    names = [setting.variable for setting in (*table().values(), *_FLAGS)]
    found = [name for name in names if os.environ.get(name)]
    return f" (Set in the environment: {', '.join(found)}.)" if found else ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        # Python names the file of a module that runs with -m.
        prog="python -m emulator" if Path(sys.argv[0]).name == "__main__.py" else None,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", nargs="?", choices=("tutorial",), help="run the tutorial's scripts on the hub"
    )
    for name, setting in table().items():
        _add(parser, setting, name)
    for each in _FLAGS:
        _add(parser, each, each.key)
    parser.add_argument("-V", "--version", action=_Version, help="print the version, and exit")
    return parser


def _add(parser: argparse.ArgumentParser, setting: Setting, name: str) -> None:
    text = _help(setting)
    if setting.metavar:
        form: dict[str, Any] = {"action": "append", "metavar": setting.metavar}
    else:
        form = {"action": "append_const", "const": "on"}
    parser.add_argument(setting.option, dest=name, help=text, **form)


def _check_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """End with one line if an option is unknown.

    argparse itself complains about its value first: it takes this for a command.
    """
    options = ["--help", "--version", *(each.option for each in (*table().values(), *_FLAGS))]
    for argument in arguments:
        name = argument.partition("=")[0]
        if name == "--" or not _OPTION.fullmatch(name):
            continue
        if name in ("-h", "-V") or any(each.startswith(name) for each in options):
            continue
        similar = [each for each in options if name.strip("-") in each]
        similar = similar or difflib.get_close_matches(name, options, 1, _SIMILAR)
        advice = f" Use {' or '.join(similar)}." if similar and name.startswith("--") else ""
        parser.error(f"Unknown option {name}.{advice}")


def _help(setting: Setting) -> str:
    repeated = "; may be repeated" if setting.many else ""
    return f"{setting.help}{repeated} (default: {setting.default})"


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        say(f"local-iot-hub {version('local-iot-hub')}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: object = None) -> None:
        # Help goes to stdout.
        say(message.rstrip())

    def error(self, message: str) -> NoReturn:
        """End with one line, as every other error of the command does."""
        message = _ARGPARSE_COMMAND.sub(r"Unknown command \1. The only one is tutorial", message)
        message = _ARGPARSE_NO_VALUE.sub(r"\1 needs a value", message)
        message = _ARGPARSE_VALUE.sub(r"\1 takes no value", message)
        print(f"emulator: {message.rstrip('.')}. --help shows the options.", file=sys.stderr)
        sys.exit(2)
