"""Starts: how long a process takes until the emulator is ready."""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.bench import Bench, measure
from benchmarks.servers import READY, Command, Program, Server, emulator, free_port
from benchmarks.table import Reading, Row, Sample

_IMPORTS = "import amqtt, aiohttp"

# How many starts there are in a round: the time of one depends on all that the system does.
_STARTS = 5


@measure(Row("process start to ready, warm files", "ms", _IMPORTS, "<= 1.5 x"))
def start(bench: Bench) -> list[Sample]:
    """Measure the time from the start of a process to the text that it is ready.

    The certificates exist, Python has its bytecode, and the system has read all files before.
    """
    place = Server(bench.folder, {"mqtt": free_port(), "https": free_port()})
    imports: Command = [sys.executable, "-c", f"{_IMPORTS}; print('ready', flush=True)"]

    def median(command: Command, text: str) -> Reading:
        times = []
        for _ in range(_STARTS + 1):
            began = time.perf_counter()
            with Program(command, bench.folder / "start.log") as program:
                program.wait_for(lambda written: text in written)
                times.append((time.perf_counter() - began) * 1000)
        return Reading(statistics.median(times[1:]))  # the first start reads the files

    times = bench.in_turns(
        emulator=lambda: median(emulator(place), READY),
        imports=lambda: median(imports, "ready"),
    )
    return [(times["emulator"], times["imports"])]
