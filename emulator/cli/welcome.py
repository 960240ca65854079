"""What a person, or a program, needs next when a hub has started."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from emulator.cli.output import in_bytes
from emulator.cli.shells import POSIX, Shell, parent_program, shell_in_use
from emulator.connection_strings import PROVISIONING, host_with_port
from emulator.emulator import Emulator
from emulator.net import files
from emulator.settings import MQTT_PORT

READY = "The hub is ready. Ctrl-C stops it."

# With more, the text does not fit on a terminal of 80 columns and 24 rows.
_SHOWN_DEVICES = 3


def welcome(emulator: Emulator, script: Path | None, advice: str) -> str:
    """Write the text for a person.

    Args:
        emulator: a running emulator.
        script: the script that sets the environment variables; None if it can't be written.
        advice: what to do about port 443; empty if there is nothing to do.
    """
    shell = _shell()
    first, *others = dict.fromkeys(emulator.settings.devices)
    shown = others[: _SHOWN_DEVICES - 1]
    with_port = host_with_port(emulator.host_name, emulator.https_port)
    services = dict.fromkeys((emulator.https_host, with_port))
    gap = [""] if not others else []
    lines = [
        f"  devices   mqtts://{emulator.mqtt_host}",
        f"  services  {'  '.join(f'https://{each}' for each in services)}",
        f"  page      https://{with_port}/",
        *_plain(emulator),
        *_dps(emulator, script),
        *gap,
        "In the console of each program, "
        + ("type this line, or paste those below it:" if script else "paste these lines:"),
        *([f"  {shell.run(script)}", *gap] if script else []),
        *(f"  {line}" for line in shell.assign(_pasted(emulator, first, script))),
        *gap,
    ]
    if others:
        count = f" ({len(shown)} of {len(others)}; --json shows all)" if others != shown else ""
        lines.append(f"Other devices{count}:")
        lines += [f"  {emulator.device_connection_string(each)}" for each in shown]
    if emulator.mqtt_port != MQTT_PORT:
        lines.append(
            f"Azure's device SDKs dial port {MQTT_PORT} and no other. They can't reach this hub: "
            f"it is on port {emulator.mqtt_port}."
        )
    return "\n".join([*lines, *([advice] if advice else []), READY])


def as_json(emulator: Emulator) -> str:
    """Write the same, and all devices, for a program: one line."""
    devices = dict.fromkeys(emulator.settings.devices)
    return json.dumps(
        {
            "hostName": emulator.host_name,
            "mqttPort": emulator.mqtt_port,
            "httpsPort": emulator.https_port,
            "httpPort": emulator.http_port,
            "uploadsPort": emulator.uploads_port,
            "serviceConnectionString": emulator.service_connection_string,
            "eventHubsConnectionString": emulator.event_hubs_connection_string,
            "deviceConnectionStrings": {
                each: emulator.device_connection_string(each) for each in devices
            },
            "dpsIdScope": emulator.dps_id_scope,
            "dpsConnectionString": emulator.dps_connection_string,
            "environment": emulator.environment(emulator.settings.devices[0]),
        }
    )


@contextlib.contextmanager
def environment_script(emulator: Emulator) -> Iterator[Path | None]:
    """Keep a script that sets the environment variables, for this user alone, while a hub runs."""
    settings = emulator.settings
    shell, folder = _shell(), settings.data_dir or settings.cert_dir
    if folder is None:
        yield None
        return
    name = f"{emulator.settings.host_in_file_names}-{emulator.mqtt_port}{shell.suffix}"
    file = folder.absolute() / name  # another console can be in another folder
    lines = shell.script(emulator.environment(emulator.settings.devices[0]))
    try:
        files.write(file, in_bytes("\n".join([*lines, ""])), mode=files.PRIVATE)
    except OSError:
        yield None  # the lines to paste are enough
        return
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _plain(emulator: Emulator) -> list[str]:
    """Write the line about the port without TLS, if there is one."""
    if emulator.http_port is None:
        return []
    where = host_with_port(emulator.host_name, emulator.http_port, default=80)
    return [f"  no TLS    http://{where}/ca.pem (also /ca-bundle.pem, /_emulator/health)"]


def _dps(emulator: Emulator, script: Path | None) -> list[str]:
    """Write the line about the Device Provisioning Service, if it is not left out."""
    if emulator.dps_id_scope is None:
        return []
    where = " (the line below also sets PROVISIONING_…)" if script else ""
    return [f"  dps       id scope {emulator.dps_id_scope}{where}"]


def _pasted(emulator: Emulator, device_id: str, script: Path | None) -> dict[str, str]:
    """Return the variables to paste; those of the Device Provisioning Service would not fit."""
    variables = emulator.environment(device_id)
    if script is None:
        return variables
    return {name: value for name, value in variables.items() if not name.startswith(PROVISIONING)}


def _shell() -> Shell:
    """Return the shell in use; POSIX where the output goes to a program."""
    if sys.stdout is None or not sys.stdout.isatty():
        return POSIX
    return shell_in_use(os.environ, parent=parent_program())
