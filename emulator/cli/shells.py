"""Environment variables as the lines of a shell."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct


class Shell(Struct, frozen=True):
    """How a shell sets variables.

    Args:
        assignment: the line that sets a variable, with its name and its quoted value.
        call: the line that runs a script within the present console.
        suffix: how the name of such a script ends.
        quote: quotes a value.
        in_script: what a line needs in a script that it does not need at the prompt.
    """

    assignment: str
    call: str
    suffix: str
    quote: Callable[[str], str]
    in_script: Callable[[str], str] = str

    def assign(self, variables: Mapping[str, str]) -> list[str]:
        """Return the lines that set some variables."""
        return [
            self.assignment.format(name=name, value=self.quote(value))
            for name, value in variables.items()
        ]

    def script(self, variables: Mapping[str, str]) -> list[str]:
        """Return the lines of a script that sets some variables."""
        return [self.in_script(line) for line in self.assign(variables)]

    def run(self, file: Path) -> str:
        """Return the line that runs a script within the present console."""
        return self.call.format(file=self.quote(str(file)))


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", r"\\").replace("'", r"\'") + "'"


# PowerShell ends a text at each of them, as if it were the first (source of PowerShell:
# CodeGeneration.EscapeSingleQuotedStringContent).
_POWERSHELL_QUOTE = re.compile("(['\u2018\u2019\u201a\u201b])")


def _powershell_quote(text: str) -> str:
    return "'" + _POWERSHELL_QUOTE.sub(r"\1\1", text) + "'"


_CMD_SPECIAL = re.compile(r"([&|<>^()])")


def _cmd_quote(text: str) -> str:
    """Return a value for `set "NAME=VALUE"`, whose outer quotes do not belong to the value.

    A quote in the value ends them, so what has a meaning outside of quotes is escaped there.
    """
    within, *others = text.split('"')
    parts = [within]
    for number, part in enumerate(others):
        parts.append(part if number % 2 else _CMD_SPECIAL.sub(r"^\1", part))
    return '"'.join(parts)


def _cmd_script(line: str) -> str:
    # A script has %1 and %NAME%. At the prompt, a name that is not set stays as it is.
    return line.replace("%", "%%")


POSIX = Shell("export {name}={value}", ". {file}", ".sh", shlex.quote)
FISH = Shell("set -gx {name} {value}", "source {file}", ".fish", _fish_quote)
POWERSHELL = Shell("$env:{name} = {value}", ". {file}", ".ps1", _powershell_quote)
CMD = Shell('set "{name}={value}"', 'call "{file}"', ".cmd", _cmd_quote, _cmd_script)

# A file for `docker run --env-file`, editors and the like: no shell, so no quotes.
_DOTENV = Shell("{name}={value}", "{file}", ".env", str)

BY_NAME = {
    **dict.fromkeys(("posix", "bash", "zsh", "sh"), POSIX),
    "fish": FISH,
    "powershell": POWERSHELL,
    "cmd": CMD,
    "dotenv": _DOTENV,
}
"""By the names that a user calls them."""

_BY_PROGRAM = {
    **dict.fromkeys(("ash", "bash", "dash", "ksh", "sh", "zsh"), POSIX),
    "fish": FISH,
    **dict.fromkeys(("powershell", "pwsh"), POWERSHELL),
}

# PowerShell adds folders to the ones that Windows has in this variable: a usual sign of it.
_MODULES, _WINDOWS_MODULES = "PSModulePath", 2


def shell_in_use(environ: Mapping[str, str], *, parent: str | None = None) -> Shell:
    """Return the shell that started this process; POSIX where that is unknown.

    Args:
        environ: the environment variables.
        parent: the program that started this process; None if that is unknown.
    """
    if parent in _BY_PROGRAM:
        return _BY_PROGRAM[parent]
    modules = environ.get(_MODULES, "")
    if sys.platform == "win32":
        return POWERSHELL if len(modules.split(os.pathsep)) > _WINDOWS_MODULES else CMD
    if modules:
        return POWERSHELL
    return _BY_PROGRAM.get(Path(environ.get("SHELL", "")).name, POSIX)


def parent_program() -> str | None:
    """Return the name of the program that started this process, where the system shows it."""
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
