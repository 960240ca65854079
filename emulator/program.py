"""How the user types this program: in help, in errors and in what to do next."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path


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
