"""The commands: `python -m emulator` and `python -m emulator tutorial`.

argparse, because a start has a second: typer would take a fifth of it to import.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

from emulator.cli import tutorial
from emulator.emulator import Emulator, StartError, run
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.throttles import ThrottleError, Throttles
from emulator.hub.core.errors import ArgumentInvalid
from emulator.net.certificates import CertificateError, default_folder
from emulator.settings import DEVICE_ID, HTTPS_PORT, MQTT_PORT, Settings

_DESCRIPTION = """\
A local Azure IoT Hub. Programs on the unmodified Azure SDKs run against it as they run against the
cloud: devices over MQTT, services over HTTPS. Nothing but this machine can reach it, unless --host
says otherwise.
"""

_EXAMPLES = """\
examples:
  python -m emulator                                    a hub with one device, myDeviceId
  python -m emulator --device kitchen --device cellar   a hub with two
  python -m emulator --host 127.0.0.2                   a second hub beside the first
  python -m emulator tutorial                           run the tutorial's two scripts, and end

On loopback the keys are well known, and no secret. On any other address they are made anew at each
start, unless --keys names a file such as {"iothubowner": "<base64>", "myDeviceId": "<base64>"}.
"""


# What a process may open on macOS at most, without being root.
_FILES = 10_240

# The exit status of a program that Ctrl-C ended, as shells have it.
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status: 0, 1 for a failure, 2 for a bad option."""
    options = _parser().parse_args(arguments)
    # Libraries are heard when something is wrong, the emulator also when it is asked to tell more.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("emulator").setLevel(logging.INFO if options.verbose else logging.WARNING)
    logging.getLogger("asyncio").addFilter(_is_worth_saying)
    try:
        settings = _settings(options)
        return run(_play(settings) if options.command == "tutorial" else _serve(settings))
    except (StartError, CertificateError) as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 1


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Leave out what asyncio says thousands of times, where uvloop is silent.

    The first is of connections that wait while no more files can be opened, and are accepted once
    others have ended; the second of peers that left before they had read everything.
    """
    noise = ("socket.accept() out of system resource", "socket.send() raised exception")
    return not record.getMessage().startswith(noise)


async def _play(settings: Settings) -> int:
    _collect_garbage()
    playing = asyncio.ensure_future(tutorial.play(settings))
    _on_signals(playing.cancel)
    try:
        return await playing
    except asyncio.CancelledError:
        return _INTERRUPTED


async def _serve(settings: Settings) -> int:
    _allow_many_files()
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    async with Emulator(settings) as emulator:
        print(_welcome(emulator), flush=True)
        _collect_garbage()
        await stopping.wait()
    return 0


def _allow_many_files() -> None:
    """Raise this process's limit on open files: each device's connection is one.

    Systems begin with 1,024 (Linux) or 256 (macOS), and let a process have more for the asking.
    """
    if resource is None:
        return
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _collect_garbage() -> None:
    """Have the garbage collector from now on, but not for what the start has made: that stays."""
    gc.freeze()
    gc.enable()


def _on_signals(stop: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m emulator",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", nargs="?", choices=["tutorial"], help="run the tutorial's scripts on the hub"
    )
    parser.add_argument(
        "--host",
        default="localhost",
        help="address or name to listen on (default: localhost, this machine alone)",
    )
    parser.add_argument(
        "--mqtt-port",
        type=_port,
        default=MQTT_PORT,
        metavar="PORT",
        help=f"for devices (default: {MQTT_PORT}, the only one that Azure's SDKs dial); "
        "0 picks a free one",
    )
    parser.add_argument(
        "--https-port",
        type=_port,
        default=HTTPS_PORT,
        metavar="PORT",
        help=f"for services (default: {HTTPS_PORT}); 0 picks a free one",
    )
    parser.add_argument(
        "--device",
        action="append",
        metavar="ID",
        help=f"register this device; may be repeated (default: {DEVICE_ID})",
    )
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="JSON file of base64 keys, by policy or device id"
    )
    parser.add_argument(
        "--client-ca",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="PEM file of a CA whose certificates devices connect with; may be repeated",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where what outlives a restart is kept (default: a folder of this user's own)",
    )
    parser.add_argument(
        "--cert-dir",
        type=Path,
        metavar="DIR",
        help="where the local CA and its certificates are kept (default: the data folder)",
    )
    parser.add_argument(
        "--throttle",
        action="append",
        type=_throttle,
        default=[],
        metavar="TIER|OPERATION=RATE",
        help="refuse what a hub of this tier (S1, S2, S3) would refuse as too much in a time, or "
        "what is over a rate, such as queries=20/min; may be repeated (default: nothing)",
    )
    parser.add_argument(
        "--storage",
        type=Path,
        metavar="DIR",
        help="where import and export jobs find their containers: file:///NAME is the folder NAME "
        "in this one (default: nowhere)",
    )
    parser.add_argument(
        "--storage-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a storage account or emulator that these jobs may use; may be repeated (default: a "
        "storage emulator on this machine, port 10000)",
    )
    parser.add_argument("--verbose", action="store_true", help="log connections to stderr")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line, as every other error of the command does."""
        print(f"emulator: {message}. --help shows the options.", file=sys.stderr)
        sys.exit(2)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535 are")
    return int(text)


def _throttle(text: str) -> str:
    try:
        Throttles.parse([text])
    except ThrottleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _settings(options: argparse.Namespace) -> Settings:
    data_dir = options.data_dir or default_folder()
    return Settings(
        host=options.host,
        mqtt_port=options.mqtt_port,
        https_port=options.https_port,
        devices=tuple(options.device or (DEVICE_ID,)),
        keys=_read_keys(options.keys) if options.keys else {},
        authorities=tuple(options.client_ca),
        cert_dir=options.cert_dir or data_dir,
        data_dir=data_dir,
        throttle=tuple(options.throttle),
        storage=options.storage,
        storage_hosts=tuple(options.storage_host),
    )


def _read_keys(file: Path) -> Mapping[str, str]:
    try:
        keys = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"Can't read the keys in {file}: {error}.") from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise StartError(f'{file} is not of the form {{"policy or device id": "<base64 key>"}}.')
    for name, key in keys.items():
        try:
            SymmetricKeys(key, key)
        except ArgumentInvalid as error:
            raise StartError(
                f"The key of {name} in {file} is none ({error.text}): it takes 16 to 64 bytes in "
                "base64."
            ) from None
    return keys


def _welcome(emulator: Emulator) -> str:
    """Say what a person needs next."""
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
        "Device connection string:" if len(devices) == 1 else "Device connection strings:",
        *(f"  {connection_string}" for connection_string in devices),
        "",
        "Paste these lines into each console that is to reach it. POSIX shells:",
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
            f"Azure's device SDKs dial port {MQTT_PORT} and no other: on port "
            f"{emulator.mqtt_port} they can't reach this hub.",
        ]
    return "\n".join(lines) + "\n"


def _powershell(value: str) -> str:
    quoted = value.replace("'", "''")
    return f"'{quoted}'"
