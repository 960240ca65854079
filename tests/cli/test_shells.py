"""The lines of each shell, and which shell is in use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.cli.shells import CMD, FISH, POSIX, POWERSHELL, Shell, shell_in_use

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
