"""The servers that are measured: each is a process of its own, on one core of its own.

All servers listen on loopback with one certificate, which the emulator creates at its
start. A new server is one entry in `SERVERS`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import randrange

import psutil

# Probably no other program uses this address: it is another one in each run. macOS has only one.
HOST = "127.0.0.1" if sys.platform == "darwin" else f"127.{randrange(1, 255)}.{randrange(255)}.1"

# The servers have one core and the client has another. If the system chose the cores, server and
# client would share one at times, and a round trip would take two or three times as long.
_CORES: list[int] = getattr(psutil.Process(), "cpu_affinity", list)()  # macOS cannot tell
CLIENT_CORE, SERVER_CORE = 0, -1

# How long a server may take to start and to end.
_START_SECONDS, _END_SECONDS = 60.0, 5.0

# Where systems put programs that are not in the PATH of all users.
_PLACES = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))


class ProgramError(Exception):
    """A program did not start, or ended too early; the text is what it wrote."""


class Program:
    """A program as a `with` block; when the block ends, the program is terminated.

    Ctrl-C does not reach the program: the `with` block ends it.

    Args:
        log: the file that the program writes its output to.
    """

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._log = log
        arguments = [str(each) for each in command]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                arguments, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self._process.pid
        stay_on_core(SERVER_CORE, self.pid)

    def wait_for(self, condition: Callable[[str], bool]) -> None:
        """Wait until a condition is true of what the program has written.

        Raises:
            ProgramError: the program ended, or 60 s have passed.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not condition(text := self._log.read_text(encoding="utf-8", errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ProgramError(text.strip() or f"{self._process.args!r} did not start")
            time.sleep(0.001)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        finally:  # also after a second Ctrl-C
            self._process.kill()
            self._process.wait()
            if sys.platform != "win32":
                with contextlib.suppress(ProcessLookupError):  # the usual: it has no children left
                    os.killpg(self.pid, signal.SIGKILL)


def stay_on_core(core: int, pid: int | None = None) -> None:
    """Bind a process to one core, if there are two and the system can do so."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
        if len(_CORES) > 1:
            psutil.Process(pid).cpu_affinity([_CORES[core]])


@dataclass(frozen=True)
class Server:
    """A server, or the place where one will start.

    Args:
        folder: for the certificates, the logs and the data of all servers.
        ports: the port of each protocol.
        pid: 0 before the start.
    """

    folder: Path
    ports: Mapping[str, int]
    pid: int = 0


# The files that the emulator creates: the CA that clients trust; the certificate and its key.
CA, CERTIFICATE = "ca.pem", "server.pem"

Command = list[str | Path]


def emulator(place: Server) -> Command:
    """Return the command of an emulator that keeps its state in a file, as by default."""
    ports = [f"--{protocol}-port={port}" for protocol, port in place.ports.items()]
    command: Command = [sys.executable, "-m", "emulator", "--host", HOST, *ports]
    return [*command, "--data-dir", place.folder, "--cert-dir", place.folder]


def _in_memory(place: Server) -> Command:
    return [*emulator(place), "--in-memory"]


def _mosquitto(place: Server) -> Command | None:
    """Return the command of mosquitto with TLS; None if it is not installed."""
    settings, certificate = place.folder / "mosquitto.conf", place.folder / CERTIFICATE
    settings.write_text(
        f"listener {place.ports['mqtt']} {HOST}\nuser {getpass.getuser()}\n"
        f"certfile {certificate}\nkeyfile {certificate}\nallow_anonymous true\n"
        "persistence false\nlog_dest stderr\nlog_type error\nmax_connections -1\n"
        "set_tcp_nodelay true\n"
    )
    program = find_mosquitto()
    return [program, "-c", settings] if program else None


def find_mosquitto() -> str | None:
    """Return the path of mosquitto; None if it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_PLACES)


def _rabbitmq(place: Server) -> Command | None:
    """Return the command of RabbitMQ with AMQP 1.0 over TLS; None if it is not installed.

    Its port mapper, epmd, has a port of its own, and ends with it.
    """
    # Debian's script in the PATH starts the one in /usr/lib as another user. As under systemd, the
    # script becomes the server.
    places = f"/usr/lib/rabbitmq/bin{os.pathsep}{os.environ['PATH']}{os.pathsep}{_PLACES}"
    program, folder, ports = shutil.which("rabbitmq-server", path=places), place.folder, place.ports
    settings, plugins, pem = folder / "rabbitmq.conf", folder / "plugins", folder / CERTIFICATE
    listener = f"listeners.tcp = none\nlisteners.ssl.1 = {HOST}:{ports['amqps']}\n"
    settings.write_text(f"{listener}ssl_options.certfile = {pem}\nssl_options.keyfile = {pem}\n")
    plugins.write_text("[rabbitmq_amqp1_0].\n")
    erlang = f"-kernel inet_dist_use_interface {{{HOST.replace('.', ',')}}}"
    script = f"""
    export HOME={folder} ERL_EPMD_PORT={ports["epmd"]} RABBITMQ_DIST_PORT={ports["erlang"]}
    export RABBITMQ_CONFIG_FILE={settings} RABBITMQ_ENABLED_PLUGINS_FILE={plugins}
    export RABBITMQ_MNESIA_BASE={folder} RABBITMQ_LOG_BASE={folder} RUNNING_UNDER_SYSTEMD=1
    export RABBITMQ_NODENAME=bench@localhost RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='{erlang}'
    epmd -address {HOST} & exec {program}"""
    return ["sh", "-c", script] if program else None


def _bare(name: str, place: Server) -> Command:
    (port,) = map(str, place.ports.values())
    return [sys.executable, "-m", "benchmarks.bare", name, HOST, port, place.folder / CERTIFICATE]


# What an emulator writes when it is ready, and the servers that are emulators.
READY = "The hub is ready."
_EMULATORS = ("emulator", "in memory")

# The command of each server, and its protocols: a server is ready when each port accepts.
SERVERS: Mapping[str, tuple[Callable[[Server], Command | None], tuple[str, ...]]] = {
    "emulator": (emulator, ("mqtt", "https", "amqps", "amqp")),
    "in memory": (_in_memory, ("mqtt", "https", "amqps", "amqp")),
    "mosquitto": (_mosquitto, ("mqtt",)),
    "rabbitmq": (_rabbitmq, ("amqps", "epmd", "erlang")),
    "hello": (partial(_bare, "hello"), ("https",)),
    "nod": (partial(_bare, "nod"), ("mqtt",)),
}


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Server | None]:
    """Run a server as a `with` block; it is None if the server is not installed.

    Raises:
        ProgramError: the server does not start.
    """
    make_command, protocols = SERVERS[name]
    place = Server(folder, {protocol: free_port() for protocol in protocols})
    command = make_command(place)
    if command is None:
        yield None
        return
    with Program(command, folder / f"{name}.log") as program:
        if name in _EMULATORS:  # it tries its ports first, and then makes its certificates
            program.wait_for(lambda text: READY in text)
        for port in place.ports.values():
            program.wait_for(lambda _, port=port: _accepts(port))  # type: ignore[misc]
        yield Server(folder, place.ports, program.pid)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def free_port() -> int:
    """Return a port on which no program listens."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
