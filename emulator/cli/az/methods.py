"""`invoke-device-method` and `invoke-module-method`."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import identities
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub


def invoke(hub: Hub, options: argparse.Namespace) -> Any:
    """Call a direct method; return the status and the payload of its answer."""
    document = {
        "methodName": options.method_name,
        "payload": {} if options.method_payload is None else options.method_payload,
        "responseTimeoutInSeconds": options.timeout,
        "connectTimeoutInSeconds": options.timeout,
    }
    where = identities.where(options)[1:]
    return hub.send("POST", "twins", *where, "methods", body=document).json()


_OF = (o.METHOD, o.PAYLOAD, o.METHOD_TIMEOUT)
_EXAMPLE = "--mn reboot --mp '{\"delay\": 5}'"

COMMANDS: tuple[Command, ...] = (
    Command(
        "invoke-device-method",
        "call a direct method of a device",
        invoke,
        (o.DEVICE, *_OF),
        f"-d kitchen {_EXAMPLE}",
    ),
    Command(
        "invoke-module-method",
        "call a direct method of a module",
        invoke,
        (o.DEVICE, o.MODULE, *_OF),
        f"-d kitchen -m camera {_EXAMPLE}",
    ),
)
