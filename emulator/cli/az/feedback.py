"""`monitor-feedback`: what became of cloud-to-device messages. It needs HTTPS only, on each hub."""

from __future__ import annotations

import argparse
import time

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.output import picker, show
from emulator.cli.az.session import Hub

_PAUSE_SECONDS = 0.5


def monitor(hub: Hub, options: argparse.Namespace) -> None:
    """Print feedback as it comes, until Ctrl-C or the feedback of one message."""
    follow(hub, options.device_id, options.wait_on_msg, options)


def follow(
    hub: Hub, device_id: str | None, message_id: str | None, options: argparse.Namespace
) -> None:
    """Print the feedback of one device, or of all, as it comes.

    It ends after the feedback of the message; without a message it does not end.

    Feedback is received once: what another device's message became is completed, too, as az does.
    """
    pick = picker(options.query)
    while True:
        answer = hub.send("GET", "messages", "serviceBound", "feedback")
        if answer.status == 204:
            time.sleep(_PAUSE_SECONDS)
            continue
        records = [
            record
            for record in answer.json()
            if device_id is None or record["deviceId"].lower() == device_id.lower()
        ]
        for record in records:
            show(pick({"feedback": record}), options.output)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        lock = headers.get("iothub-messagelocktoken") or headers["etag"].strip('"')
        hub.send("DELETE", "messages", "serviceBound", "feedback", lock)
        if message_id in [record["originalMessageId"] for record in records]:
            return


COMMANDS: tuple[Command, ...] = (
    Command(
        "monitor-feedback",
        "show what becomes of cloud-to-device messages",
        monitor,
        (o.ANY_DEVICE, o.WAIT_ON),
        "-d kitchen",
    ),
)
