"""The lines of each shell, and which shell is in use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.cli.shells import BY_NAME, CMD, FISH, POSIX, POWERSHELL, Shell, shell_in_use

PRINT = "import os; print(*(os.environ[name] for name in 'ABCDE'), sep='\\n')"
VALUES = {"A": "plain", "B": "it's a $HOME", "C": "HostName=h;Key=a=b", "D": 'a\\b "c"', "E": "%P%"}


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        (POSIX, ["export A=plain", """export B='it'"'"'s a $HOME'"""]),
        (FISH, ["set -gx A 'plain'", r"set -gx B 'it\'s a $HOME'"]),
        (POWERSHELL, ["$env:A = 'plain'", "$env:B = 'it''s a $HOME'"]),
        (CMD, ['set "A=plain"', 'set "B=it\'s a $HOME"']),
    ],
)
def test_each_shell_has_its_own_lines(shell: Shell, lines: list[str]) -> None:
    assert shell.assign(VALUES)[:2] == lines


@pytest.mark.parametrize(
    ("value", "prompt", "script"),
    [
        ("100%", "100%", "100%%"),
        ("%PATH%", "%PATH%", "%%PATH%%"),
        ("a&b|c<d>e^f(g)!h", "a&b|c<d>e^f(g)!h", "a&b|c<d>e^f(g)!h"),  # within the outer quotes
        ('a "b & c" (d)', 'a "b ^& c" (d)', 'a "b ^& c" (d)'),
        ('"', '"', '"'),
        ('a&"b&"c&"%^', 'a&"b^&"c&"%^^', 'a&"b^&"c&"%%^^'),
    ],
)
def test_cmd_reads_no_other_command_out_of_a_value(value: str, prompt: str, script: str) -> None:
    assert CMD.assign({"A": value}) == [f'set "A={prompt}"']
    assert CMD.script({"A": value}) == [f'set "A={script}"']


@pytest.mark.parametrize("quote", ["'", "\u2018", "\u2019", "\u201a", "\u201b"])
def test_powershell_ends_a_text_at_no_quote_within_it(quote: str) -> None:
    value = f"O{quote}Brien; $(calc) `n"
    assert POWERSHELL.script({"A": value}) == [f"$env:A = 'O{quote * 2}Brien; $(calc) `n'"]
    file = Path(f"/home/o{quote}b/hub.ps1")
    assert POWERSHELL.run(file) == f". '/home/o{quote * 2}b/hub.ps1'"


def test_a_script_of_other_shells_has_the_lines_of_the_prompt() -> None:
    for shell in {*BY_NAME.values()} - {CMD}:
        assert shell.script(VALUES) == shell.assign(VALUES)


@pytest.mark.parametrize(
    ("program", "shell"), [("sh", POSIX), ("bash", POSIX), ("fish", FISH), ("pwsh", POWERSHELL)]
)
def test_the_shell_reads_what_was_meant(program: str, shell: Shell, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"this machine has no {program}")
    file = tmp_path / f"it's a file{shell.suffix}"
    file.write_text("\n".join([*shell.assign(VALUES), ""]))
    call = "& " if shell is POWERSHELL else ""
    command = f'{shell.run(file)}\n{call}{sys.executable} -c "{PRINT}"'
    run = subprocess.run([program, "-c", command], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == [*VALUES.values()], run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signs")
@pytest.mark.parametrize(
    ("environ", "parent", "expected"),
    [
        ({}, None, POSIX),
        ({"SHELL": "/bin/bash"}, None, POSIX),
        ({"SHELL": "/usr/bin/fish"}, None, FISH),
        ({"SHELL": "/usr/bin/fish"}, "bash", POSIX),
        ({"SHELL": "/bin/bash"}, "fish", FISH),
        ({"SHELL": "/bin/bash", "PSModulePath": "/opt"}, None, POWERSHELL),
        ({"SHELL": "/bin/bash", "PSModulePath": "/opt"}, "zsh", POSIX),
        ({"SHELL": "/bin/bash"}, "pwsh", POWERSHELL),
        ({"SHELL": "/bin/tcsh"}, "make", POSIX),
    ],
)
def test_the_shell_in_use_is_found(
    environ: dict[str, str], parent: str | None, expected: Shell
) -> None:
    assert shell_in_use(environ, parent=parent) is expected
