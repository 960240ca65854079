"""The servers that are measured, and those that they are compared with, each a process of its own.

All of them listen on one loopback address, and show the same certificate.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bench import Bench, Effort, End, Hub, Measure
from benchmarks.processes import Program, ProgramError, python
from emulator.net import certificates

# Where systems put what isn't meant for every user's PATH.
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

_MOSQUITTO = """\
listener {port} {host}
certfile {server}
keyfile {server}
user {user}
allow_anonymous true
persistence false
log_dest stderr
log_type error
max_connections -1
set_tcp_nodelay true
"""

_START_SECONDS = 10.0


def loopback_address() -> str:
    """Choose an address that no other program listens on; macOS has but one."""
    if sys.platform == "darwin":
        return "127.0.0.1"
    return f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}"


def find_mosquitto() -> str | None:
    """Find mosquitto; None if it isn't installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_PLACES))


@contextlib.contextmanager
def serving(measure: Measure, folder: Path, rounds: int, effort: Effort) -> Iterator[Bench]:
    """Start what a measure needs, and end it.

    Args:
        folder: for the certificates, and what servers keep and log.

    Raises:
        ProgramError: a server doesn't start.
    """
    host = loopback_address()
    shown = certificates.prepare(folder / "certificates", certificates.local_names(host))
    with ExitStack() as stack:
        hub = stack.enter_context(emulator(host, folder))
        broker = None
        if measure.mosquitto and (program := find_mosquitto()) is not None:
            broker = stack.enter_context(mosquitto(program, host, folder, shown.server))
        bare, nod = (
            stack.enter_context(_bare(name, host, folder)) if wanted else None
            for name, wanted in (("hello", measure.hello), ("nod", measure.nod))
        )
        yield Bench(str(shown.ca), hub, broker, bare, nod, rounds, effort)


def emulator_command(host: str, ports: tuple[int, int], folder: Path) -> list[str | Path]:
    """Write the command that starts an emulator which keeps its sessions in a file, as usual."""
    mqtt_port, https_port = map(str, ports)
    options: list[str | Path] = ["--mqtt-port", mqtt_port, "--https-port", https_port]
    options += ["--data-dir", folder / "data", "--cert-dir", folder / "certificates"]
    return python("-m", "emulator", "--host", host, *options)


@contextlib.contextmanager
def emulator(host: str, folder: Path) -> Iterator[Hub]:
    """Run an emulator."""
    mqtt_port, https_port = free_port(host), free_port(host)
    command = emulator_command(host, (mqtt_port, https_port), folder)
    with Program(command, folder / "emulator.log") as program:
        program.line("The hub is ready.")
        key = program.line("  HostName=").partition(";SharedAccessKey=")[2]
        yield Hub(End(host, mqtt_port, program.pid), End(host, https_port, program.pid), key)


@contextlib.contextmanager
def mosquitto(program: str, host: str, folder: Path, server: Path) -> Iterator[End]:
    """Run mosquitto with TLS, and nothing that would slow it down."""
    port = free_port(host)
    settings = folder / "mosquitto.conf"
    settings.write_text(
        _MOSQUITTO.format(host=host, port=port, server=server, user=getpass.getuser())
    )
    with Program([program, "-c", settings], folder / "mosquitto.log") as running:
        end = End(host, port, running.pid)
        _wait_until_it_listens(end, running)
        yield end


@contextlib.contextmanager
def _bare(name: str, host: str, folder: Path) -> Iterator[End]:
    """Run one of the bare servers: hello, or nod."""
    command = python("-m", f"benchmarks.{name}", host, folder / "certificates")
    with Program(command, folder / f"{name}.log") as program:
        yield End(host, int(program.line("port ")), program.pid)


def free_port(host: str) -> int:
    """Find a port that nobody listens on."""
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_listens(end: End, program: Program) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(end.address, timeout=1).close()
            return
        except OSError:
            if program.process.poll() is not None or time.monotonic() > deadline:
                raise ProgramError(program.errors or "It doesn't listen.") from None
            time.sleep(0.02)
