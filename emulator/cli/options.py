"""The command's options: they are made from the table of settings."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from emulator.cli.commands import AZ_COMMANDS, COMMANDS, is_command
from emulator.cli.parser import Parser, Version, similar
from emulator.errors import StartError
from emulator.net.listeners import other_loopback_address
from emulator.setting import Setting, SettingError, flag
from emulator.settings import MQTT_PORT, Found, Settings, find, table, user_folder

# Lines of at most 79 characters: a terminal often has 80.
_DESCRIPTION = """\
A local Azure IoT Hub. Programs on the unmodified Azure SDKs run against it as
they run against the cloud: devices over MQTT or AMQP, services over HTTPS or
AMQP. Only programs on this machine can reach it, unless --host names another
address.
"""


def _lines(commands: Mapping[str, str]) -> str:
    width = max(map(len, commands))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in commands.items())


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

commands, each with --help:
{_lines(COMMANDS)}

the same in the words of `az iot hub`, against the hub that runs, or any other:
{_lines(AZ_COMMANDS)}

first steps:
  1. Start a hub, in a console of its own. It prints lines that set environment
     variables, and one line that sets them all.
  2. Type that line in the console of your program. The variables are its
     connection strings, and the file of certificates that it must trust.
  3. Start your program there. The hub's console says why it refuses a program.

environment:
  Each option has a variable: IOTHUB_EMULATOR_MQTT_PORT=8884 means
  --mqtt-port 8884. An option has priority over its variable. Separate several
  values by spaces, and several paths by "{os.pathsep}".

On loopback the keys are well known and public. On any other address they are
random, from the first start on, unless --keys names a file such as
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
    "the state is kept, except by tutorial and run",
    parse=flag,
)
FLAGS = (_VERBOSE, _QUIET, _JSON, _IN_MEMORY)


class Command(NamedTuple):
    """What a command line asks for.

    Args:
        name: `tutorial` or `run`; None is the hub.
        settings: the settings of the hub.
        found: the settings that are not the default, each with its source.
        verbose: whether more is logged.
        quiet: whether less is logged.
        json: whether the hub prints JSON.
        in_memory: whether the hub keeps nothing.
    """

    name: str | None
    settings: Settings
    found: Mapping[str, Found]
    verbose: bool
    quiet: bool
    json: bool
    in_memory: bool

    @property
    def try_port_443(self) -> bool:
        """Whether the hub listens on port 443 as well, where the system allows it."""
        return "https_port" not in self.found


def parse(arguments: Sequence[str] | None) -> Command:
    """Parse the command line and the environment of a hub, or of the tutorial.

    An invalid option or variable ends the process with one line and exit status 2.

    Args:
        arguments: the command line without the program; None is that of this process.

    Raises:
        StartError: a file can't be used, or the user has no folder.
    """
    parser = Parser("", _DESCRIPTION, _EPILOG)
    parser.add_argument("command", nargs="?", help="tutorial: run its scripts on the hub")
    add_settings(parser)
    options = vars(parser.parse_known(sys.argv[1:] if arguments is None else arguments))
    name = options["command"]
    if name is not None and is_command(name):
        parser.error(f"The command {name} must be the first word")
    if name not in (None, "start", "tutorial"):
        found = similar(name, [*COMMANDS, *AZ_COMMANDS, "start", "tutorial"])
        advice = found[0] if found else f"tutorial, {', '.join((*COMMANDS, *AZ_COMMANDS))}"
        parser.error(f"Unknown command {name!r}. Use {advice}")
    return read_command(parser, options, None if name == "start" else name)


def add_settings(parser: Parser, **defaults: str) -> None:
    """Add the options of a hub to a command.

    Args:
        parser: of the command.
        defaults: what `--help` shows as the default, by the field, where the command has another.
    """
    for name, setting in table().items():
        _add(parser, setting, name, defaults.get(name, setting.default))
    for each in FLAGS:
        _add(parser, each, each.key, each.default)
    parser.add_argument("-V", "--version", action=Version, help="print the version, and exit")


def _add(parser: Parser, setting: Setting, name: str, default: str) -> None:
    repeated = "; may be repeated" if setting.many else ""
    text = f"{setting.help}{repeated} (default: {default})"
    if setting.metavar:
        form: dict[str, Any] = {"action": "append", "metavar": setting.metavar}
    else:
        form = {"action": "append_const", "const": "on"}
    parser.add_argument(setting.option, dest=name, help=text, **form)


def read_command(
    parser: Parser, options: Mapping[str, Sequence[str] | None], name: str | None
) -> Command:
    """Make a command of parsed options and of the environment.

    Args:
        parser: ends the process where a value is invalid.
        options: the texts of each option, by the name of its field.
        name: the command that runs a hub; None is the hub alone.

    Raises:
        StartError: a file can't be used, or the user has no folder.
    """
    try:
        found = find(options, os.environ)
        verbose, quiet, json, in_memory = (
            bool(each.read(options[each.key], os.environ.get(each.variable))) for each in FLAGS
        )
    except SettingError as error:
        parser.error(str(error))
    try:
        settings = Settings(**{field: each.value for field, each in found.items()})
    except StartError as error:
        parser.error(f"{error.command}{note_variables(error.command)}")
    if not settings.devices:
        parser.error("The device is missing. Use --device ID")
    if verbose and quiet:
        parser.error("--verbose and --quiet contradict each other")
    if json and name:
        parser.error(f"--json has no use for the command {name}")
    if name == "tutorial" and settings.mqtt_port != MQTT_PORT:
        address = other_loopback_address(settings.host)
        other = f", or use another address: --host {address}" if address else ""
        text = (
            f"The tutorial can't use --mqtt-port {settings.mqtt_port}: its device dials port "
            f"{MQTT_PORT} and no other. Leave the option out{other}."
        )
        parser.error(f"{text}{note_variables(text)}")
    # The command keeps its state by default; an emulator in a program does not.
    folder = settings.data_dir or user_folder()
    keeps = not in_memory and (settings.data_dir is not None or name is None)
    settings = replace(
        settings,
        data_dir=folder if keeps else None,
        cert_dir=settings.cert_dir or folder,
    )
    return Command(name, settings, found, verbose, quiet, json, in_memory)


def note_variables(text: str) -> str:
    """Name the variables that an error is about, for its end; empty without any.

    Args:
        text: the error. It names an option, a setting or a value.
    """
    names = {**{setting.key: setting for setting in FLAGS}, **table()}
    found = [
        setting.variable
        for name, setting in names.items()
        if (value := os.environ.get(setting.variable)) and _names(text, name, setting, value)
    ]
    return f" (Set in the environment: {', '.join(found)}.)" if found else ""


def _names(text: str, name: str, setting: Setting, value: str) -> bool:
    """Return whether a text has a setting's option, its name, or its value."""
    words = [setting.option, name, name.replace("_", " ")]
    if setting.metavar:  # 1 for a flag says nothing
        words += [value, *value.split()] if setting.many else [value]
    return any(re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", text) for word in words)
