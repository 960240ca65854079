"""`fault`: faults on demand of the hub that runs."""

from __future__ import annotations

import argparse
import functools
from argparse import ArgumentTypeError
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az import values
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub
from emulator.cli.parser import UsageError, similar
from emulator.errors import ClientError

_FAULTS = "_emulator", "faults"
_COLUMNS = (
    *("id", "kind", "device", "module", "operation", "how", "link", "status", "delay", "rate"),
    *("count", "probability", "duration", "hits"),
)

KINDS = {
    "drop-connection": "the connection ends, once: --how clean or cut",
    "refuse-connection": "the hub refuses connections",
    "expire-token": "the connection ends as when its token expires, once",
    "drop-link": "a link of AMQP ends, once: --link",
    "slow-link": "at most --rate bytes in a second, each way",
    "delay-puback": "the PUBACK of MQTT comes --delay seconds later",
    "drop-puback": "there is no PUBACK",
    "twin-status": "twin requests of the device have this --status",
    "throttle": "429; telemetry is acknowledged --delay seconds later",
    "quota-exceeded": "403 for messages",
    "server-error": "500",
    "service-unavailable": "503",
    "delay-method": "a direct method comes --delay seconds later",
    "lose-method": "a direct method does not reach the device",
    "fail-method": "the call of a direct method fails with this --status",
    "delay-method-response": "the response comes --delay seconds later",
    "lose-method-response": "the response is lost",
    "duplicate-c2d": "the device gets a message twice",
    "reorder-c2d": "a message is sent behind the next one",
    "delay-registration": "a device is assigned --delay seconds later",
    "fail-registration": "the assignment of a device fails",
}

_WIDTH = max(map(len, KINDS))
_LINES = "\n".join(f"  {kind:<{_WIDTH}}  {text}" for kind, text in KINDS.items())
_NOTES = f"""\
The fault goes on until fault remove or fault clear, if it has neither --count
nor --duration. docs/faults.md says what an SDK sees, and has the operations.

kinds:
{_LINES}
"""


def _kind(text: str) -> str:
    if text not in KINDS:
        advice = ", ".join(similar(text, KINDS) or KINDS)
        raise ArgumentTypeError(f"Unknown kind of fault {text!r}. Use {advice}")
    return text


_delay = functools.partial(values.duration, zero=True)

_NUMBER: dict[str, Any] = {"metavar": "NUMBER", "type": values.number_or_text}

# The members of a fault, each with its option. `Fault` checks numbers and choices.
_MEMBERS = {
    "kind": o.argument("kind", type=_kind, help="what goes wrong: see below"),
    "device": o.ANY_DEVICE.but(help="the device (default: every caller)"),
    "module": o.ANY_MODULE.but(help="the module of the device (default: the device itself)"),
    "operation": o.option(
        "--operation", help="what it affects, such as send-event (default: as the kind)"
    ),
    "count": o.option("--count", help="how often it happens (default: always)", **_NUMBER),
    "probability": o.option("--probability", help="how likely, each time: up to 1", **_NUMBER),
    "seed": o.option("--seed", help="the same one makes the same choices (default: 0)", **_NUMBER),
    "duration": o.option("--duration", help="until its end, such as 90s", type=values.duration),
    "delay": o.option("--delay", help="such as 0.5 or 5s (default: 1)", type=_delay),
    "status": o.option("--status", help="the status of the answer", **_NUMBER),
    "how": o.option("--how", help="clean or cut (default: clean)"),
    "rate": o.option("--rate", help="in bytes in a second", **_NUMBER),
    "link": o.option("--link", help="which one, such as telemetry or session"),
}
_ID = o.argument("id", type=values.whole(1), help="the id, as fault add and fault list show it")


def list_faults(hub: Hub, _: argparse.Namespace) -> Any:
    """Return the faults that are on."""
    return hub.get(*_FAULTS)


def add(hub: Hub, options: argparse.Namespace) -> Any:
    """Turn a fault on; return it with its id.

    Raises:
        UsageError: it is invalid.
    """
    # Imported here: other commands need nothing of a hub.
    from emulator.hub.core.errors import ArgumentInvalid
    from emulator.hub.faults.fault import Fault

    values_of = {name: getattr(options, each.destination) for name, each in _MEMBERS.items()}
    fault = {name: value for name, value in values_of.items() if value is not None}
    try:
        Fault.parse(fault)
    except ArgumentInvalid as error:
        raise UsageError(error.text) from None
    return {**hub.send("POST", *_FAULTS, body=fault).json(), **fault}


def remove(hub: Hub, options: argparse.Namespace) -> None:
    """Turn a fault off.

    Raises:
        ClientError: it is unknown; it can have ended.
    """
    try:
        hub.send("DELETE", *_FAULTS, str(options.id))
    except ClientError as error:
        if error.status != 400:
            raise
        raise ClientError(str(error), status=404, code="FaultNotFound") from None


def clear(hub: Hub, _: argparse.Namespace) -> None:
    """Turn all faults off."""
    hub.send("DELETE", *_FAULTS)


COMMANDS: tuple[Command, ...] = (
    Command(
        "fault add",
        "turn a fault on: the hub breaks what a device or a service does",
        add,
        (*_MEMBERS.values(),),
        "twin-status -d kitchen --status 429 --count 2",
        _COLUMNS,
        notes=_NOTES,
    ),
    Command(
        "fault list",
        "list the faults that are on, and how often each happened",
        list_faults,
        example="-o table",
        columns=_COLUMNS,
    ),
    Command("fault remove", "turn a fault off", remove, (_ID,), "1"),
    Command("fault clear", "turn all faults off", clear),
)
