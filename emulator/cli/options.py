"""The command's options: they are made from the table of settings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from emulator.settings import Setting, SettingError, Settings, flag, read, table, user_folder

_DESCRIPTION = """\
A local Azure IoT Hub. Programs on the unmodified Azure SDKs run against it as they run against the
cloud: devices over MQTT, services over HTTPS. Only programs on this machine can reach it, unless
--host names another address.
"""

_EPILOG = f"""\
examples:
  %(prog)s                                    a hub with one device, myDeviceId
  %(prog)s --device kitchen --device cellar   a hub with two devices
  %(prog)s --host 127.0.0.2                   a second hub beside the first
  %(prog)s tutorial                           run the tutorial's two scripts, and end

environment:
  Each option has a variable: IOTHUB_EMULATOR_MQTT_PORT=8884 means --mqtt-port 8884. An option beats
  its variable. Several values have spaces between them, several paths "{os.pathsep}".

On loopback the keys are well known and public. On any other address each start makes new ones,
unless --keys names a file such as {{"iothubowner": "<base64>", "myDeviceId": "<base64>"}}.
"""

# A setting of the command alone.
_VERBOSE = Setting("verbose", "", "log connections to stderr", "warnings only", parse=flag)


class Command(NamedTuple):
    """What a command line asks for."""

    name: str | None
    settings: Settings
    verbose: bool


def parse(arguments: Sequence[str] | None) -> Command:
    """Parse the command line and the environment.

    An invalid option or variable ends the process with one line and exit status 2.

    Args:
        arguments: the command line without the program; None is that of this process.

    Raises:
        StartError: a file can't be used, or the user has no folder.
    """
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    try:
        settings = read(options, os.environ)
        verbose = _VERBOSE.read(options["verbose"], os.environ.get(_VERBOSE.variable))
    except SettingError as error:
        parser.error(str(error))
    # The command keeps its data by default; an emulator in a program does not.
    data_dir = settings.data_dir or user_folder()
    cert_dir = settings.cert_dir or data_dir
    settings = replace(settings, data_dir=data_dir, cert_dir=cert_dir)
    return Command(options["command"], settings, bool(verbose))


def note_variables() -> str:
    """Name the variables that are set, for the end of an error; empty without any."""
    names = [setting.variable for setting in (*table().values(), _VERBOSE)]
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
        parser.add_argument(
            setting.option, dest=name, action="append", metavar=setting.metavar, help=_help(setting)
        )
    parser.add_argument(_VERBOSE.option, action="append_const", const="on", help=_help(_VERBOSE))
    return parser


def _help(setting: Setting) -> str:
    repeated = "; may be repeated" if setting.many else ""
    return f"{setting.help}{repeated} (default: {setting.default})"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line, as every other error of the command does."""
        print(f"emulator: {message.rstrip('.')}. --help shows the options.", file=sys.stderr)
        sys.exit(2)
