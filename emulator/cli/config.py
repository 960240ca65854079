"""`config`: the settings in effect, and configuration files: checked, applied, described."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import Any

from emulator.cli import hubs, setting_values
from emulator.cli.options import FLAGS, Command, add_settings, read_command
from emulator.cli.output import complain, say
from emulator.cli.parser import Parser
from emulator.config.apply import check
from emulator.config.content import ENTRIES
from emulator.config.file import ConfigFile, load
from emulator.config.mistakes import ConfigError
from emulator.config.schema import schema
from emulator.hub.core.json import dumps
from emulator.program import program
from emulator.settings import Settings, table
from emulator.storage.connection_string import masked

_DESCRIPTION = """\
Print the settings that a hub with these options would have, as JSON: each with
its value, and where that is from: the default, a file, a variable, an option.
It does not ask a hub that runs: status does. Keys are masked.
"""
_EPILOG = """\
examples:
  %(prog)s
      the settings of a hub without options, in this environment
  %(prog)s --config hub.toml --host 127.0.0.2
      with a file and an option
  %(prog)s check hub.toml
      find the mistakes in a file
  %(prog)s apply hub.toml
      create, update and delete in the hub that runs what the file says
  %(prog)s schema
      print the JSON Schema of these files
"""
_CHECK = "Check a configuration file: its settings, and its content on an empty hub.\n"
_APPLY = f"""\
Apply a configuration file to the hub that runs. Devices, modules, CAs,
configurations and faults are created and updated. What an earlier file has
created, and this one no longer has, is deleted. Settings and policies need a
restart of the hub: those that have changed are named.

{hubs.FINDING}"""
_SCHEMA = "Print the JSON Schema of configuration files.\n"


def main(arguments: Sequence[str]) -> int:
    """Print the settings, or do something with a file.

    Raises:
        StartError: the file has mistakes.
        ClientError: the hub can't be reached, or refuses the file.
    """
    actions = {"check": _check, "apply": _apply, "schema": _print_schema}
    if arguments and (action := actions.get(arguments[0])) is not None:
        return action(arguments[1:])
    parser = Parser("config", _DESCRIPTION, _EPILOG)
    if arguments and not arguments[0].startswith("-"):
        parser.error(f"Unknown command 'config {arguments[0]}'. Use {', '.join(actions)}")
    parser.usage = f"{parser.prog} [OPTIONS] | check FILE | apply FILE | schema"
    add_settings(parser)
    parser.add_argument("--show-keys", action="store_true", help="print keys as they are")
    options = vars(parser.parse_known(arguments))
    shows_keys = options.pop("show_keys")
    command = read_command(parser, options, None)
    found = _effective(command, shows_keys=shows_keys)
    flags = (command.verbose, command.quiet, command.json, command.in_memory)
    for each, is_on in zip(FLAGS, flags, strict=True):
        source = each.option if options[each.key] else each.variable
        found[each.key] = {
            "value": is_on,
            "from": source if is_on else "default",
        }
    say(json.dumps(found, indent=2))
    return 0


def _effective(command: Command, *, shows_keys: bool) -> dict[str, dict[str, Any]]:
    """Return each setting with its value and its source, by its key."""
    settings, found = command.settings, command.found
    return {
        setting.key: {
            "value": _value(settings, name, shows_keys=shows_keys),
            "from": found[name].source if name in found else "default",
        }
        for name, setting in table().items()
    }


def _value(settings: Settings, name: str, *, shows_keys: bool) -> object:
    value = getattr(settings, name)
    if name == "upload_storage" and not shows_keys:
        return masked(value)
    if isinstance(value, ConfigFile):
        return str(value.path)
    return setting_values.document(value, shows_keys=shows_keys)


def _check(arguments: Sequence[str]) -> int:
    parser = Parser("config check", _CHECK, "example:\n  %(prog)s hub.toml\n")
    parser.add_argument("file", metavar="FILE", help="the file: .toml or .json")
    config = _checked(parser.parse_known(arguments).file)
    content = config.content
    say(
        f"{config.path} is valid: {len(config.settings)} settings, {len(content.policies)} "
        f"policies, {len(content.devices)} devices, {len(content.certificates)} certificates, "
        f"{len(content.configurations)} configurations, {len(content.faults)} faults."
    )
    return 0


def _apply(arguments: Sequence[str]) -> int:
    parser = Parser("config apply", _APPLY, "example:\n  %(prog)s hub.toml\n")
    parser.add_argument("file", metavar="FILE", help="the file: .toml or .json")
    hubs.add_options(parser)
    options = parser.parse_known(arguments)
    config = _checked(options.file)
    document = load(config.path)
    content = {name: value for name, value in document.items() if name in ENTRIES}
    content.pop(setting_values.POLICIES, None)
    applied = json.loads(
        hubs.connect(options).request("POST", "/_emulator/config", dumps(content)).body
    )
    numbers = ", ".join(f"{number} {what}" for what, number in applied.items())
    faults = " Its faults begin anew." if config.content.faults else ""
    changes = numbers if any(applied.values()) else "nothing has changed"
    say(f"Applied {config.path}: {changes}.{faults}")
    of_file, of_hub = setting_values.of_file(config), _settings_of_hub(options)
    if of_hub is None:
        others, when = [name for name in document if name in of_file], " if they have changed"
    else:
        others, when = [key for key, each in of_file.items() if each not in of_hub[key]], ""
    if others:
        complain(
            f"emulator: Not applied: {', '.join(others)}. They need a restart{when}: "
            f"{program()} --config {config.path}"
        )
    return 0


def _settings_of_hub(options: argparse.Namespace) -> dict[str, list[str]] | None:
    """Return the fingerprints of the hub's settings; None for a hub of another machine."""
    found = hubs.announcement(options)
    return None if found is None else found.get("settings")


def _print_schema(arguments: Sequence[str]) -> int:
    parser = Parser("config schema", _SCHEMA, "example:\n  %(prog)s > config.schema.json\n")
    parser.parse_known(arguments)
    say(published_schema())
    return 0


def published_schema() -> str:
    """Return the text of docs/config.schema.json, without its last line feed."""
    return json.dumps(schema(each for each in table().values() if each.key != "config"), indent=2)


def _checked(path: str) -> ConfigFile:
    """Read a file, and try its content on an empty hub.

    Raises:
        ConfigError: the file has mistakes.
    """
    settings = Settings.from_file(path)
    config = settings.config
    assert config is not None  # noqa: S101 - it was read from the file
    try:
        asyncio.run(check(config.content, settings.key_pair))
    except ConfigError as error:
        raise ConfigError(error.mistakes, config.path) from None
    return config
