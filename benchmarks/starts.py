"""Starts: how long a process takes until the hub is ready."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bench import Bench, Measure, Round
from benchmarks.peers import emulator_command, free_port, loopback_address
from benchmarks.processes import Program, python
from benchmarks.table import Figure, Reach, Sample

# The first imports next to nothing of amqtt; the second is what the emulator stands on.
_PEERS = ("import amqtt, aiohttp", "import amqtt.broker, aiohttp.web_server")

# How often each is started in a round: one start is at the mercy of all that the system does.
_TURNS = 5


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

        def peer(imports: str) -> float:
            # It says when its imports are done: its end is not counted, as the hub's isn't.
            command = python("-c", f"{imports}; print('ready', flush=True)")
            return _milliseconds(command, folder, "ready")

        hub()
        for imports in _PEERS:
            peer(imports)
        for _ in range(bench.rounds):
            turns = [(hub(), *map(peer, _PEERS)) for _ in range(_TURNS)]
            started, *imported = map(statistics.median, zip(*turns, strict=True))
            yield tuple(Sample(started, each) for each in imported)


def _milliseconds(command: Sequence[str | Path], folder: Path, word: str) -> float:
    began = time.perf_counter()
    with Program(command, folder / "log") as program:
        program.line(word)
        return (time.perf_counter() - began) * 1000


MEASURES = (
    Measure(
        (
            Figure("process start to ready, warm files", "ms", _PEERS[0], Reach(1.5)),
            Figure("the same start, beside what it stands on", "ms", _PEERS[1]),
        ),
        start,
    ),
)
