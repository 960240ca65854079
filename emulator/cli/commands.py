"""The commands beside the hub itself: their names, what they do, and their functions.

The module of a command is imported when it is used: a start must not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

COMMANDS = {
    "run": "start a hub, and run a command against it",
    "status": "show the hub that runs",
    "config": "show the settings; check a file, or apply it to the hub that runs",
    "snapshot": "write the state of the hub that runs into a file",
    "restore": "replace the state of the hub that runs by that in a file",
    "reset": "empty the hub that runs",
}


def function_of(name: str) -> Callable[[Sequence[str]], int]:
    """Return the function of a command: it takes the arguments, and returns the exit status."""
    match name:
        case "run":
            from emulator.cli.run import main
        case "status":
            from emulator.cli.status import main
        case "config":
            from emulator.cli.config import main
        case "snapshot":
            from emulator.cli.snapshot import main
        case "restore":
            from emulator.cli.restore import main
        case _:
            from emulator.cli.reset import main
    return main
