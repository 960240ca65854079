"""Starts: how long a process takes until the emulator is ready."""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.bench import Bench, measure
from benchmarks.servers import HOST, READY, Command, Program, Server, emulator, free_port
from benchmarks.table import Reading, Row, Sample
from emulator.disk.store import DiskStore
from emulator.hub.core.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey

_IMPORTS = "import amqtt, aiohttp"

# How many starts there are in a round: the time of one depends on all that the system does.
_STARTS = 5
_REGISTERED = 100_000


def _median(bench: Bench, command: Command, text: str, starts: int = _STARTS) -> Reading:
    """Return how many milliseconds a program takes until it writes a text."""
    times = []
    for _ in range(starts + 1):
        began = time.perf_counter()
        with Program(command, bench.folder / "start.log") as program:
            program.wait_for(lambda written: text in written)
            times.append((time.perf_counter() - began) * 1000)
    return Reading(statistics.median(times[1:]))  # the first start reads the files


@measure(Row("process start to ready, warm files", "ms", _IMPORTS, "<= 1.5 x"))
def start(bench: Bench) -> list[Sample]:
    """Measure the time from the start of a process to the text that it is ready.

    The certificates exist, Python has its bytecode, and the system has read all files before.
    """
    place = Server(bench.folder, {"mqtt": free_port(), "https": free_port()})
    imports: Command = [sys.executable, "-c", f"{_IMPORTS}; print('ready', flush=True)"]

    times = bench.in_turns(
        emulator=lambda: _median(bench, emulator(place), READY),
        imports=lambda: _median(bench, imports, "ready"),
    )
    return [(times["emulator"], times["imports"])]


@measure(Row(f"process start with {_REGISTERED:,} devices on disk", "ms", reach="<= 3000"))
def start_with_devices(bench: Bench) -> list[Sample]:
    """Measure the same for a hub whose file has many devices."""
    folder = bench.folder / "many"
    place = Server(folder, {"mqtt": free_port(), "https": free_port()})
    file = folder / f"hub-{HOST}.sqlite"
    if not file.exists():
        store = DiskStore(file)
        hub = IotHub(store=store, policies=(), hosts=(HOST,))
        for device_id in bench.devices(_REGISTERED):
            hub.identities.put(IdentityKey(device_id), {"deviceId": device_id}, IfMatch(None))
        store.close()
    return [(_median(bench, emulator(place), READY, 2), None)]
