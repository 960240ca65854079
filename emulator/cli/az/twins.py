"""`device-twin` and `module-twin`."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import identities, updates
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, precondition
from emulator.cli.parser import UsageError


def _where(options: argparse.Namespace) -> tuple[str, ...]:
    return "twins", *identities.where(options)[1:]


def show(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a twin."""
    return hub.get(*_where(options))


def update(hub: Hub, options: argparse.Namespace) -> Any:
    """Merge a patch into a twin; return the twin."""
    patch = updates.patch(options.set, options.remove)
    if options.tags is not None:
        patch["tags"] = {**(patch.get("tags") or {}), **options.tags}
    if options.desired is not None:
        properties = patch.setdefault("properties", {})
        properties["desired"] = {**(properties.get("desired") or {}), **options.desired}
    if not patch:
        raise UsageError("Nothing to change. Use --desired, --tags, --set or --remove")
    headers = precondition(options.etag)
    return hub.send("PATCH", *_where(options), body=patch, headers=headers).json()


def replace(hub: Hub, options: argparse.Namespace) -> Any:
    """Replace the tags and the desired properties of a twin; return the twin."""
    headers = precondition(options.etag)
    return hub.send("PUT", *_where(options), body=options.json, headers=headers).json()


def _commands(kind: str, of: tuple[o.Option, ...], example: str) -> tuple[Command, ...]:
    return (
        Command(f"{kind}-twin show", f"show the twin of a {kind}", show, of, example),
        Command(
            f"{kind}-twin update",
            f"merge tags or desired properties into the twin of a {kind}",
            update,
            (*of, o.DESIRED, o.TAGS, *o.UPDATES, o.ETAG),
            f"{example} --desired '{{\"interval\": 5}}'",
        ),
        Command(
            f"{kind}-twin replace",
            f"replace the tags and the desired properties of a {kind}",
            replace,
            (*of, o.TWIN, o.ETAG),
            f"{example} --json twin.json",
        ),
    )


COMMANDS: tuple[Command, ...] = (
    *_commands("device", (o.DEVICE,), "-d kitchen"),
    Command(
        "device-twin list",
        "list the twins of devices",
        identities.list_devices,
        (o.TOP, o.EDGE),
        "-o table",
        identities.DEVICE_COLUMNS,
    ),
    *_commands("module", (o.DEVICE, o.MODULE), "-d kitchen -m camera"),
)
