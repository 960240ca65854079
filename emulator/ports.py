"""The ports of an emulator: which of them it serves, and their sockets."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

from emulator.hub.core.printable import printable
from emulator.net import listeners
from emulator.net.listeners import ListenError
from emulator.settings import AMQP_PORT, AMQPS_PORT, UPLOADS_PORT, Settings, table

log = logging.getLogger(__name__)

# The ports that the hub serves by default, if they are free.
DEFAULT_PORTS = {"amqps_port": AMQPS_PORT, "amqp_port": AMQP_PORT, "uploads_port": UPLOADS_PORT}


def check(settings: Settings) -> None:
    """Check that every port is free, and close it again.

    Raises:
        ListenError: a port is in use, or this user can't open it.
    """
    with ExitStack() as trial:
        for name in settings.ports:
            _listen(trial, settings, name, report=log.debug)


def listen_all(
    stack: ExitStack | AsyncExitStack, settings: Settings
) -> dict[str, list[socket.socket]]:
    """Open the sockets of every port; the stack closes them.

    Raises:
        ListenError: a port is in use, or this user can't open it.

    Returns:
        The sockets by the name of the setting; an empty list for a port that is not served.
    """
    return {name: _listen(stack, settings, name) for name in settings.ports}


def _listen(
    stack: ExitStack | AsyncExitStack,
    settings: Settings,
    name: str,
    report: Callable[..., None] = log.warning,
) -> list[socket.socket]:
    """Open the sockets of a port.

    If another program, such as RabbitMQ, has a default port, the hub does not serve that port. By
    default it serves plain AMQP on loopback alone, because other machines could read it.
    """
    option, port = table()[name].option, settings.ports[name]
    if port is None and (
        name not in DEFAULT_PORTS or (name == "amqp_port" and not settings.on_loopback)
    ):
        return []
    chosen = DEFAULT_PORTS[name] if port is None else port
    if port is None and chosen in settings.ports.values():
        return []  # the user has given it to another head
    try:
        bound = listeners.listen(settings.host, chosen, option=option)
    except ListenError as error:
        if port is not None or not error.in_use:
            raise
        report(
            "Port %d is in use on %s, so the hub does not serve %s there. Stop the other "
            "program, or use another port: %s PORT.",
            chosen,
            printable(settings.host),
            printable("uploads of files" if name == "uploads_port" else "AMQP"),
            printable(option),
        )
        return []
    for each in bound:
        stack.callback(each.close)
    return bound
