"""What the process of the hub uses, under the names that Prometheus' clients have for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from emulator.http.admin.prometheus import Metric

_PROC = Path("/proc/self")


def measure() -> Iterator[Metric]:
    """Measure the process; only Linux shows more than the time of the processor."""
    yield Metric(
        "process_cpu_seconds_total", "Time of processors, user and system.", time.process_time()
    )
    try:
        virtual, resident = (_PROC / "statm").read_text().split()[:2]
        files = len(os.listdir(_PROC / "fd"))  # noqa: PTH208 - Path would make 10,000 objects
        started = _start_time()
    except OSError:
        return
    # Imported here: Windows has no such module.
    from resource import RLIMIT_NOFILE, getrlimit

    page = os.sysconf("SC_PAGE_SIZE")
    yield Metric("process_resident_memory_bytes", "Memory in use.", int(resident) * page)
    yield Metric("process_virtual_memory_bytes", "Memory that is reserved.", int(virtual) * page)
    yield Metric("process_open_fds", "Open files and sockets.", files)
    yield Metric("process_max_fds", "How many it can open.", getrlimit(RLIMIT_NOFILE)[0])
    yield Metric("process_start_time_seconds", "When it started, in seconds since 1970.", started)


def _start_time() -> float:
    """Return the start of the process (proc(5): field 22 of stat, in ticks since the boot)."""
    # The second field is a name that can have spaces and brackets.
    ticks = int((_PROC / "stat").read_text().rpartition(")")[2].split()[19])
    booted = Path("/proc/stat").read_text().partition("\nbtime ")[2].split()[0]
    return int(booted) + ticks / os.sysconf("SC_CLK_TCK")
