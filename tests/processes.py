"""Programs as processes of their own, started, read and ended as a person does at a console."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest
import requests

from tests.support import PATIENCE, Service, wait_until

ROOT = Path(__file__).resolve().parent.parent
DEVICE_SCRIPT = ROOT / "dmpatterns_getstarted_device.py"
SERVICE_SCRIPT = ROOT / "dmpatterns_getstarted_service.py"

# What the device script writes before it listens.
DEVICE_STARTS = [
    "Starting the IoT Hub Python sample...",
    "IoTHubDeviceClient waiting for commands, press Ctrl-C to exit",
]

# How long a program may take to end once it is told to.
END_SECONDS = 2.0

posix_only = pytest.mark.skipif(
    sys.platform == "win32",
    reason="Windows has no SIGTERM, and its Ctrl-C would reach the test run as well",
)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with `variables`, without those of a hub or a proxy.

    It is that of an active venv: `python` is the Python of the tests.
    """
    ours = re.compile(
        r"(?i)IOTHUB_|PROVISIONING_|SSL_CERT_FILE$|(REQUESTS|CURL)_CA_BUNDLE$|NODE_EXTRA_CA_CERTS$|\w+_PROXY$"
    )
    inherited = {name: value for name, value in os.environ.items() if not ours.match(name)}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return inherited | {"PATH": path} | variables


class Console:
    """A program that runs in a console: its lines as they come, Ctrl-C, its exit status.

    Used as a `with` block, at the end of which neither it nor what it started runs.

    Args:
        program: Python by default.
    """

    def __init__(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        program: str = sys.executable,
    ) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [program, *map(str, arguments)],
            cwd=folder,
            env=clean_environment() if environment is None else environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            # A group of its own: Ctrl-C reaches this program and no other, and those that it starts
            # in their turn can be told from all others.
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=reading)
            for reading in ((self._process.stdout, self.lines), (self._process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()
        if os.name == "posix" and self.left_programs:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern: str, *, count: int = 1, timeout: float = PATIENCE) -> str:
        """Wait until `count` lines match as a whole, and return the last of them."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                ended = not any(reader.is_alive() for reader in self._readers)
                found = [line for line in self.lines if re.fullmatch(pattern, line)]
                if len(found) >= count:
                    return found[count - 1]
                if ended or time.monotonic() > deadline:
                    why = "ended" if ended else f"ran {timeout} seconds"
                    raise AssertionError(f"It {why} without {count} x {pattern!r}:\n{self.output}")
                self._news.wait(0.1)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it ends by itself, and return its exit status."""
        status = self._process.wait(timeout)
        for reader in self._readers:
            reader.join()
        return status

    def press_ctrl_c(self) -> int:
        """Interrupt it as a terminal does, with all that it started, and return the exit status."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.wait()

    def terminate(self) -> int:
        """Send SIGTERM to it alone, and return the exit status."""
        self._process.terminate()
        return self.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def left_programs(self) -> bool:
        """Whether a program that it started still runs."""
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Everything that it wrote, for a message."""
        return "\n".join([*self.lines, "--- stderr:", *self.errors])


class EmulatorConsole(Console):
    """`python -m emulator`, once it said that it is ready.

    Args:
        options: the command's options.
    """

    def __init__(
        self,
        *options: str | Path,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> None:
        super().__init__("-m", "emulator", *options, environment=environment, folder=folder)
        try:
            self.wait_for(re.escape("The hub is ready. Ctrl-C stops it."))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def paste(self) -> list[str]:
        """The lines that it offers to paste into a shell."""
        return [line for line in self.lines if line.startswith("  export ")]

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of these lines."""
        words = [shlex.split(line)[1] for line in self.paste]
        return dict(word.split("=", 1) for word in words)

    @property
    def file_variables(self) -> dict[str, str]:
        """The environment variables of the file that the hub names: these, and some more."""
        source = next(line for line in self.lines if line.startswith("  . "))
        lines = Path(shlex.split(source)[1]).read_text(encoding="utf-8").splitlines()
        return dict(shlex.split(line)[1].split("=", 1) for line in lines if line)

    @property
    def device_connection_strings(self) -> dict[str, str]:
        """The connection string of each device, by its id."""
        lines = "\n".join([self.variables["IOTHUB_DEVICE_CONNECTION_STRING"], *self.lines])
        found = re.findall(r"^ *(HostName=[^;]+;DeviceId=([^;]+);\S+)$", lines, re.MULTILINE)
        return {device_id: connection_string for connection_string, device_id in found}

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a console into which these lines were pasted."""
        return clean_environment(**{**self.variables, **variables})

    @property
    def service_connection_string(self) -> str:
        """The connection string of a service with every right."""
        return self.variables["IOTHUB_CONNECTION_STRING"]

    @property
    def ca_file(self) -> Path:
        """The file with the CA of the hub."""
        return Path(self.variables["SSL_CERT_FILE"])

    def request(self, verb: str, path: str, *, json: object = None) -> requests.Response:
        """Send one request as a service with every right."""
        with Service(self) as service:
            return service.request(verb, path, json=json)

    def wait_for_listener(self, device_id: str) -> None:
        """Wait until a device takes direct methods. Its program does not answer this one."""
        method = {"methodName": "none", "connectTimeoutInSeconds": 5, "responseTimeoutInSeconds": 5}
        path = f"/twins/{device_id}/methods"
        wait_until(lambda: self.request("POST", path, json=method).status_code == 504)
