"""Starts: how long a process takes until the hub is ready."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bench import Bench, Measure, Round
from benchmarks.peers import emulator_command, free_port, loopback_address
from benchmarks.processes import Program, python
from benchmarks.table import Figure, Reach, Sample

# The peer says when its imports are done: its end is not counted, as the hub's isn't.
_PEER = "import amqtt, aiohttp"
_PEER_COMMAND = ("-c", f"{_PEER}; print('ready', flush=True)")


def start(bench: Bench) -> Iterator[Round]:
    """Measure from the start of the process to its word that it is ready.

    Files are warm: certificates are there, Python's bytecode is, and the system has read them all.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, host = Path(name), loopback_address()

        def hub() -> float:
            ports = free_port(host), free_port(host)
            command = emulator_command(host, ports, folder)
            return _milliseconds(command, folder, "The hub is ready.")

        def peer() -> float:
            return _milliseconds(python(*_PEER_COMMAND), folder, "ready")

        hub()
        peer()
        for _ in range(bench.rounds):
            yield (Sample(hub(), peer()),)


def _milliseconds(command: Sequence[str | Path], folder: Path, word: str) -> float:
    began = time.perf_counter()
    with Program(command, folder / "log") as program:
        program.line(word)
        return (time.perf_counter() - began) * 1000


MEASURES = (
    Measure((Figure("process start to ready, warm files", "ms", _PEER, Reach(1.5)),), start),
)
