"""Node programs with the unmodified SDKs of npm, which tests call.

The tests are skipped where Node is not installed.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from tests.npm import install
from tests.support import PATIENCE, Service, second_hub

FOLDER = Path(__file__).parent
AMQPS_PORT = 5671
HTTPS_PORT = 443


class NodeError(Exception):
    """A call of a Node program has failed; the name is that of the error there."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class Node:
    """A process of Node that runs driver.js."""

    def __init__(self, modules: Path, ca_file: Path) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "NODE_PATH": str(modules),
            "NODE_EXTRA_CA_CERTS": str(ca_file),
            "NODE_NO_WARNINGS": "1",
        }
        self._process = subprocess.Popen(
            ["node", str(FOLDER / "driver.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._numbers = itertools.count(1)
        self._queues: dict[Any, queue.Queue[Any]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, program: str, call: str, **args: Any) -> Any:
        """Call a function of a program in this folder, and return what it returns."""
        number = next(self._numbers)
        assert self._process.stdin
        request = {"id": number, "program": program, "call": call, "args": args}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._queue(number).get(timeout=PATIENCE)
        if error := answer.get("error"):
            raise NodeError(error["name"], error["message"])
        return answer["value"]

    def wait(self, channel: str, event: str) -> Any:
        """Return the value of the next event of this name on a channel."""
        return self._queue((channel, event)).get(timeout=PATIENCE)

    def has(self, channel: str, event: str) -> bool:
        """Return whether there is an event that no test has waited for."""
        return not self._queue((channel, event)).empty()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()

    def _queue(self, key: Any) -> queue.Queue[Any]:
        with self._lock:
            return self._queues.setdefault(key, queue.Queue())

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if "id" in message:
                self._queue(message["id"]).put(message)
            else:
                self._queue((message["channel"], message["event"])).put(message["value"])


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with the packages of package.json."""
    return install(FOLDER / "package.json")


@pytest.fixture(scope="session")
def node(node_modules: Path, emulator: Emulator) -> Iterator[Node]:
    """A process of Node that trusts the emulator."""
    process = Node(node_modules, emulator.ca_file)
    yield process
    uncaught = process.has("driver", "uncaught")
    process.close()
    assert not uncaught, process.wait("driver", "uncaught")


@pytest.fixture(params=["Amqp", "AmqpWs"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def web_socket_hub(emulator: Emulator) -> Iterator[Emulator]:
    """An emulator at the port that the SDKs dial over WebSockets."""
    try:
        socket.create_server((emulator.host_name, HTTPS_PORT)).close()
    except OSError as error:  # a privilege is missing, or another program listens there
        pytest.skip(f"the SDK dials port 443, which can't be listened on: {error.strerror}")
    with second_hub(emulator, https_port=HTTPS_PORT, amqps_port=0, amqp_port=0) as running:
        yield running


@pytest.fixture
def hub(request: pytest.FixtureRequest, emulator: Emulator, transport: str) -> Emulator:
    """The emulator that the SDK dials."""
    if transport == "AmqpWs":
        found = request.getfixturevalue("web_socket_hub")
        assert isinstance(found, Emulator)
        return found
    if emulator.amqps_port != AMQPS_PORT:
        pytest.skip("another program has port 5671")
    return emulator


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    """A service over HTTPS, at the same hub."""
    with Service(hub) as client:
        yield client
