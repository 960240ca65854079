"""The commands beside the hub itself: their names, what they do, and their functions.

The module of a command is imported when it is used: a start must not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

COMMANDS = {
    "run": "start a hub, and run a command against it",
    "status": "show the hub that runs",
    "env": "print the environment variables that programs need",
    "token": "print a SAS token for curl and the like",
    "ca": "print the local CA; make CAs and certificates for tests",
    "clock": "show the clock of the hub that runs; advance it",
    "fault": "faults on demand in the hub that runs: list, add, remove, clear",
    "config": "show the settings; check a file, or apply it to the hub that runs",
    "snapshot": "write the state of the hub that runs into a file",
    "restore": "replace the state of the hub that runs by that in a file",
    "reset": "empty the hub that runs",
    "completion": "print the completion of commands for a shell",
}

# In the words and options of `az iot hub`, `az iot device` and `az iot dps`.
AZ_COMMANDS = {
    "device-identity": "devices: create, show, list, update, delete, …",
    "module-identity": "modules of devices, in the same words",
    "device-twin": "twins of devices: show, update, replace, list",
    "module-twin": "twins of modules, in the same words",
    "invoke-device-method": "call a direct method of a device",
    "invoke-module-method": "call a direct method of a module",
    "query": "query devices, modules and jobs",
    "job": "jobs: create, show, list, cancel",
    "configuration": "configurations: create, show, list, update, delete, …",
    "digital-twin": "digital twins: show, update, invoke-command",
    "c2d-message": "messages to devices: send, receive, complete, purge, …",
    "monitor-events": "show what devices send, as it comes",
    "monitor-feedback": "show what becomes of messages to devices",
    "simulate": "simulate a device, or many",
    "generate-sas-token": "make a SAS token of the hub, a device or a module",
    "certificate": "CAs of devices: create, list, show, delete, verify, …",
    "enrollment": "provisioning of a device: create, list, show, update, …",
    "enrollment-group": "provisioning of many devices, in the same words",
    "registration": "register a device with the provisioning service",
}


def is_command(name: str) -> bool:
    """Return whether a first word names a command."""
    return name in COMMANDS or name in AZ_COMMANDS


def function_of(name: str) -> Callable[[Sequence[str]], int]:
    """Return the function of a command: it takes the arguments, and returns the exit status."""
    match name:
        case "run":
            from emulator.cli.run import main
        case "status":
            from emulator.cli.status import main
        case "env":
            from emulator.cli.env import main
        case "token":
            from emulator.cli.token import main
        case "ca":
            from emulator.cli.ca import main
        case "config":
            from emulator.cli.config import main
        case "snapshot":
            from emulator.cli.snapshot import main
        case "restore":
            from emulator.cli.restore import main
        case "reset":
            from emulator.cli.reset import main
        case "completion":
            from emulator.cli.completion import main
        case _:
            from emulator.cli.az.main import main as run

            return lambda arguments: run(name, arguments)
    return main
