"""The command without a name: a hub that runs until Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
import sys

from emulator.cli.hubs import announced
from emulator.cli.options import Command
from emulator.cli.output import OutputError, say
from emulator.cli.process import (
    allow_many_files,
    collect_garbage,
    on_reader_gone,
    on_signals,
    switch_threads_often,
)
from emulator.cli.watch import watch
from emulator.cli.welcome import as_json, environment_script, welcome
from emulator.emulator import Emulator
from emulator.net.listeners import ListenError, listen, other_loopback_address
from emulator.settings import Settings

# What port 443 needs where only some users can open it.
_ALLOW_443 = (
    "Port 443 (Node services, WebSockets) needs root: docs/connecting.md#port-443"
    if sys.platform == "darwin"
    else "For port 443 (Node): sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"
)


async def serve(command: Command) -> int:
    """Run a hub until Ctrl-C or SIGTERM, and return 0.

    Raises:
        StartError
        OutputError: the output can't be written, or its reader has ended.
    """
    allow_many_files()
    switch_threads_often()
    # Whether the hub stops because its output has no reader.
    stopping: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def stop(reader_gone: bool = False) -> None:
        if not stopping.done():
            stopping.set_result(reader_gone)

    on_signals(stop)
    sockets, advice = _open_port_443(command.settings) if command.try_port_443 else ([], "")
    async with Emulator(command.settings, port_443=sockets).in_this_loop() as emulator:
        watching: list[asyncio.Task[None]] = []
        if command.verbose:
            emulator.follow(lambda hub: watching.append(asyncio.ensure_future(watch(hub))))
        try:
            with announced(emulator), environment_script(emulator) as script:
                say(as_json(emulator) if command.json else welcome(emulator, script, advice))
                on_reader_gone(lambda: stop(True))
                collect_garbage()
                reader_gone = await stopping
        finally:
            for task in watching:
                task.cancel()
    if reader_gone:
        raise OutputError("Nothing reads the output any more, so the hub stopped.")
    return 0


def _open_port_443(settings: Settings) -> tuple[list[socket.socket], str]:
    """Open port 443: Node's service SDK and WebSockets of devices dial no other.

    Returns:
        the sockets, and what to do if the list is empty.
    """
    if 443 in settings.ports.values():
        return [], ""
    try:
        return listen(settings.host, 443, option="--https-port"), ""
    except ListenError as error:
        if not error.in_use:
            return [], _ALLOW_443
        address = other_loopback_address(settings.host)
        advice = f"use --host {address}" if address else "stop the other program"
        return [], f"Port 443 is in use. Node services and WebSockets need it: {advice}."
