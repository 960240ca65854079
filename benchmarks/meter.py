"""What measuring costs the processes: their time on the processor, and their memory."""

from __future__ import annotations

import time
from types import TracebackType

import psutil

from benchmarks.table import Work


class Meter:
    """Counts the processors' time while it is entered, over as many windows as it is entered for.

    The servers' time is taken from the first window's beginning to the last one's end, as the
    system counts it in steps of 10 ms: between windows nobody should ask anything of them.

    Args:
        servers: process ids of the servers that work meanwhile.
    """

    def __init__(self, *servers: int) -> None:
        self._servers = [psutil.Process(pid) for pid in servers]
        self.seconds = 0.0
        """How long the windows were."""
        self.served = [0.0] * len(servers)
        """How long each server worked in them."""
        self._worked = 0.0
        self._total = 0.0
        self._at_first: list[float] = []

    def __enter__(self) -> Meter:
        self._at_first = self._at_first or _times(self._servers)
        self._began = time.process_time(), _machine_time(), time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        worked, total, began = self._began
        self.seconds += time.perf_counter() - began
        self._worked += time.process_time() - worked
        self._total += _machine_time() - total
        now = _times(self._servers)
        self.served = [after - before for before, after in zip(self._at_first, now, strict=True)]

    @property
    def work(self) -> Work:
        """How busy the servers, this process and the rest of the machine were."""
        others = max(0.0, self._total - self._worked - sum(self.served))
        return Work(
            max(self.served) / self.seconds,
            self._worked / self.seconds,
            others / self.seconds,
            psutil.cpu_count() or 1,
        )


def memory(pid: int) -> int:
    """Tell how many bytes a process has to itself; where the system can't say, all it has."""
    process = psutil.Process(pid)
    try:
        return int(process.memory_full_info().uss)
    except (psutil.AccessDenied, AttributeError):
        return int(process.memory_info().rss)


def _times(processes: list[psutil.Process]) -> list[float]:
    return [times.user + times.system for times in (each.cpu_times() for each in processes)]


def _machine_time() -> float:
    """Give the seconds that all processors have worked, or were taken away by a hypervisor."""
    times = psutil.cpu_times()
    waited = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts a guest's time twice.
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - waited - counted_twice)
