"""Runs a command of these families: its words, its options, its function, and its output."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

from emulator.cli import hubs
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.families import commands_of
from emulator.cli.az.output import picker, show
from emulator.cli.output import complain, say
from emulator.cli.parser import Parser, similar
from emulator.program import program

_WIDTH = 80
_HELP = {"-h", "--help"}


def main(family: str, arguments: Sequence[str]) -> int:
    """Run a command; return 0.

    Args:
        family: the first word of the command.
        arguments: the other ones, and the options.

    Raises:
        ClientError, OutputError, UsageError
    """
    gc.enable()  # some run for long
    command, rest = _find(family, arguments)
    parser = parser_of(command)
    options = parser.parse_known(rest)
    pick = picker(options.query)
    result = command.run(command.session(options), options)
    picked = None if result is None else pick(result)
    show(picked, options.output, command.columns if options.query is None else ())
    return 0


def parser_of(command: Command) -> Parser:
    """Return the parser of a command."""
    notes = f"\n{command.notes}" if command.notes else ""
    epilog = f"{command.session.FINDING}{notes}\nexample:\n{_example(command)}\n"
    summary = f"{command.summary[0].upper()}{command.summary[1:]}."
    parser = Parser(command.words, summary, epilog)
    forms = "".join(each.form for each in command.options)
    gap = "\n         " if len(f"usage: {parser.prog}{forms} [OPTIONS]") >= _WIDTH else ""
    parser.usage = f"{parser.prog}{gap}{forms} [OPTIONS]"
    for option in (*command.options, *o.COMMON):
        option.add_to(parser)
    taken = {flag for each in command.options for flag in each.flags}
    # For some commands -n is the name of something else.
    hubs.add_options(parser, [each for each in command.session.NAMES if each not in taken])
    return parser


def _example(command: Command) -> str:
    line = f"  {program()} {command.words} {command.example}"
    if len(line.partition("\n")[0]) < _WIDTH:
        return line
    return line.replace(f" {command.example}", f" \\\n      {command.example}")


def _find(family: str, arguments: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """Return the command that the first words name, and the other arguments.

    What does not name a command ends the process: with help, or with one line.
    """
    commands = {tuple(each.words.split()): each for each in commands_of(family)}
    words: tuple[str, ...] = (family,)
    while True:
        rest = arguments[len(words) - 1 :]
        if words in commands:
            return commands[words], rest
        at = len(words)
        following = list(dict.fromkeys(each[at] for each in commands if each[:at] == words))
        if not rest or rest[0].startswith("-"):
            alone = [each for path, each in commands.items() if path[:-1] == words and each.alone]
            if alone and (len(following) == 1 or not _HELP & set(rest)):
                return alone[0], rest  # connection-string, clock
            _help(words, [each for path, each in commands.items() if path[:at] == words], rest)
        if rest[0] not in following:
            found = similar(rest[0], following) or following
            _refuse(f"Unknown command {' '.join((*words, rest[0]))!r}. Use {', '.join(found)}")
        words = (*words, rest[0])


def _help(words: Sequence[str], commands: Sequence[Command], rest: Sequence[str]) -> NoReturn:
    name = " ".join(words)
    if not _HELP & set(rest):
        known = ", ".join(each.words.removeprefix(f"{name} ") for each in commands)
        _refuse(f"The command {name} is incomplete. Use {known}")
    names = {each.words.removeprefix(f"{name} "): each.summary for each in commands}
    width = max(map(len, names))
    lines = (f"  {each:<{width}}  {summary}" for each, summary in names.items())
    text = [f"usage: {program()} {name} COMMAND [OPTIONS]", "", "commands, each with --help:"]
    say("\n".join([*text, *lines, "", "example:", _example(commands[0])]))
    sys.exit(0)


def _refuse(text: str) -> NoReturn:
    complain(f"emulator: {text}. --help shows the commands.")
    sys.exit(2)
