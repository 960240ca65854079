"""`digital-twin`: a device as IoT Plug and Play sees it."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, precondition


def show(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a digital twin."""
    return hub.get("digitaltwins", options.device_id)


def update(hub: Hub, options: argparse.Namespace) -> Any:
    """Patch a digital twin; return it."""
    patch = options.json_patch if isinstance(options.json_patch, list) else [options.json_patch]
    where, headers = ("digitaltwins", options.device_id), precondition(options.etag)
    hub.send("PATCH", *where, body=patch, headers=headers)
    return show(hub, options)


def invoke(hub: Hub, options: argparse.Namespace) -> Any:
    """Call a command; return the status and the payload of its answer."""
    component = ("components", options.component_path) if options.component_path else ()
    where = ("digitaltwins", options.device_id, *component, "commands", options.command_name)
    timeouts = {
        "connectTimeoutInSeconds": options.connect_timeout,
        "responseTimeoutInSeconds": options.response_timeout,
    }
    given = {name: str(value) for name, value in timeouts.items() if value is not None}
    payload = {} if options.payload is None else options.payload
    answer = hub.send("POST", *where, body=payload, parameters=given)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return {"payload": answer.json(), "status": headers.get("x-ms-command-statuscode")}


_OF = (o.DEVICE,)

COMMANDS: tuple[Command, ...] = (
    Command("digital-twin show", "show a digital twin", show, _OF, "-d kitchen"),
    Command(
        "digital-twin update",
        "change a digital twin by JSON Patch",
        update,
        (*_OF, o.PATCH, o.ETAG),
        "-d kitchen --patch patch.json",
    ),
    Command(
        "digital-twin invoke-command",
        "call a command of a device or of its component",
        invoke,
        (*_OF, *o.COMMAND),
        "-d kitchen --cn reboot",
    ),
)
