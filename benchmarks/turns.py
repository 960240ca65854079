"""Two callers that take turns, so that both have the same machine: whatever else it is doing."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from benchmarks.bench import Effort
from benchmarks.meter import Meter

# Round trips at a stretch, before the other has its turn.
_BLOCK = 100


def in_turns(
    call: Callable[[], object],
    peer: Callable[[], object] | None,
    effort: Effort,
    meter: Meter,
    peer_meter: Meter,
) -> tuple[list[float], list[float]]:
    """Call and peer take turns, some calls each; gives what each call took, in milliseconds."""
    times: list[float] = []
    peer_times: list[float] = []
    sides = [(call, times, meter)]
    if peer is not None:
        sides.append((peer, peer_times, peer_meter))
    for each, _, _ in sides:
        for _ in range(_BLOCK // 5):  # both are warm before the first is measured
            each()
    gc.collect()
    gc.freeze()  # what is there stays, and need not be looked at
    block = min(_BLOCK, effort.calls)
    for _ in range(effort.calls // block):
        for each, taken, counting in sides:
            with counting:
                for _ in range(block):
                    began = time.perf_counter()
                    each()
                    taken.append((time.perf_counter() - began) * 1000)
        sides.reverse()
    return times, peer_times
