"""The command without a name: a hub that runs until Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex

from emulator.cli.process import allow_many_files, collect_garbage, on_signals
from emulator.emulator import Emulator
from emulator.settings import MQTT_PORT, Settings


async def serve(settings: Settings) -> int:
    """Run a hub until Ctrl-C or SIGTERM, and return 0.

    Raises:
        StartError
    """
    allow_many_files()
    stopping = asyncio.Event()
    on_signals(stopping.set)
    async with Emulator(settings) as emulator:
        print(_welcome(emulator), flush=True)
        collect_garbage()
        await stopping.wait()
    return 0


def _welcome(emulator: Emulator) -> str:
    """Write what a person needs next."""
    devices = [emulator.device_connection_string(device) for device in emulator.settings.devices]
    variables = emulator.environment(emulator.settings.devices[0])
    lines = [
        "The hub is ready. Ctrl-C stops it.",
        "",
        f"  devices   mqtts://{emulator.mqtt_host}",
        f"  services  https://{emulator.https_host}",
        "",
        "Service connection string:",
        f"  {emulator.service_connection_string}",
        "",
        "Event Hubs connection string, to read what devices send:",
        f"  {emulator.event_hubs_connection_string}",
        "",
        "Device connection string:" if len(devices) == 1 else "Device connection strings:",
        *(f"  {connection_string}" for connection_string in devices),
        "",
        "Paste these lines into each console whose programs use the hub. POSIX shells:",
        "",
        *(f"  export {name}={shlex.quote(value)}" for name, value in variables.items()),
        "",
        "PowerShell:",
        "",
        *(f"  $env:{name} = {_powershell(value)}" for name, value in variables.items()),
    ]
    if emulator.mqtt_port != MQTT_PORT:
        lines += [
            "",
            f"Azure's device SDKs dial port {MQTT_PORT} and no other. They can't reach this hub: "
            f"it is on port {emulator.mqtt_port}.",
        ]
    return "\n".join(lines) + "\n"


def _powershell(value: str) -> str:
    quoted = value.replace("'", "''")
    return f"'{quoted}'"
