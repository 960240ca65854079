"""A hub as a process, whose memory and time are measured while clients do their worst."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import psutil

from emulator.settings import WELL_KNOWN_PRIMARY_KEY
from tests.devices import greeting
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.mqtt.web_socket import WebSocketWire
from tests.processes import EmulatorConsole
from tests.support import Service, trust

TWIN_ANSWERS = "$iothub/twin/res/#"

# How long a device may wait for its twin while others do their worst, and how long on average in a
# flood. It takes 10 to 20 ms if the hub gives each device its turn; the rest is for a slow machine.
ANSWER_SECONDS = 1.0
SHARE_SECONDS = 0.25

# What a flood, or a crowd of idle clients, may leave in memory. Allocators don't return everything;
# a queue without a bound would take gigabytes.
MEGABYTES = 100


class Hub:
    """The emulator as a process, with two devices: one that offends, and a bystander."""

    def __init__(self, console: EmulatorConsole, host: str) -> None:
        self._console = console
        self.log_start = 0
        self.host = host
        self.service = Service(console)
        self.https_port = int(self.service.url.rpartition(":")[2])
        self.trust = trust(console)
        self.process = psutil.Process(console.pid)

    @property
    def address(self) -> tuple[str, int]:
        return self.host, 8883

    @property
    def megabytes(self) -> float:
        """The memory that the process holds."""
        return float(self.process.memory_info().rss / 1e6)

    @property
    def new_log(self) -> list[str]:
        """What it has logged since the test began."""
        return self._console.errors[self.log_start :]

    def sockets(self, port: int) -> int:
        """How many connections it has at a port."""
        return sum(
            each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
            for each in self.process.net_connections("tcp")
        )

    def connect(
        self,
        device_id: str,
        *filters: str,
        receive_buffer: int | None = None,
        keep_alive: int = 60,
        web_socket: bool = False,
    ) -> Wire:
        """Connect a device, and subscribe it to filters."""
        wire = (
            WebSocketWire(self.host, self.https_port, self.trust)
            if web_socket
            else Wire(self.address, self.trust, receive_buffer=receive_buffer)
        )
        key = WELL_KNOWN_PRIMARY_KEY
        wire.begin(greeting(self.host, device_id, key, keep_alive=keep_alive), *filters)
        return wire

    def drop(self, device_id: str) -> None:
        """Close the connection of a device: to replace it is what two programs do."""
        identity = self.service.request("GET", f"/devices/{device_id}").json()
        for status in ("disabled", "enabled"):
            body = {**identity, "status": status}
            path, any_etag = f"/devices/{device_id}", {"If-Match": "*"}
            answer = self.service.request("PUT", path, json=body, headers=any_etag)
            assert answer.status_code == 200


def twin_seconds(hub: Hub, wire: Wire) -> float:
    """How long a device waits for its twin, without what a busy machine adds (Linux tells it)."""
    started = time.monotonic() - _starved_seconds(hub)
    wire.send(raw.publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    return time.monotonic() - _starved_seconds(hub) - started


def _starved_seconds(hub: Hub) -> float:
    """How long the hub and this thread were ready to run, but had no processor (man 5 proc)."""
    files = (Path(f"/proc/{hub.process.pid}/schedstat"), Path("/proc/thread-self/schedstat"))
    return sum(int(each.read_text().split()[1]) for each in files if each.exists()) / 1e9


class Flood:
    """Sends the same bytes again and again, in a thread, and reads whatever comes back."""

    def __init__(self, connection: Wire | socket.socket, data: bytes) -> None:
        self.rounds = 0
        self._wire = connection
        if isinstance(connection, Wire):
            is_web_socket = isinstance(connection, WebSocketWire)
            connection = connection._tls if is_web_socket else connection._socket
        self._socket = connection
        self._data = memoryview(data)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def is_running(self) -> bool:
        """Whether the hub has not cut it off."""
        return self._thread.is_alive()

    def __enter__(self) -> Flood:
        self._socket.settimeout(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._wire.close()

    def _run(self) -> None:
        rest = self._data
        while not self._stop.is_set():
            moved = False
            try:
                rest = rest[self._socket.send(rest) :]
                moved = True
                if not rest:
                    self.rounds += 1
                    rest = self._data
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except (ConnectionError, ssl.SSLEOFError):
                return  # the hub has cut it off
            try:
                data = self._socket.recv(262144)
                moved = True
                if not data:
                    return
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            if not moved:
                time.sleep(0.001)
