"""Queries over many twins; see queries.py, which fills a hub in this process and asks it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

from benchmarks import queries
from benchmarks.bench import Bench, Measure, Round
from benchmarks.table import Figure, Reach, Sample

_MILLISECONDS = {"point": 100, "range": 200, "aggregate": 300}


def search(bench: Bench) -> Iterator[Round]:
    """Measure each query once a round. There are always as many twins."""
    hub = queries.filled_hub()
    gc.collect()
    gc.freeze()

    def seconds(name: str) -> float:
        began = time.perf_counter()
        hub.queries.run(queries.QUERIES[name], size=queries.PAGE, continuation=None)
        return time.perf_counter() - began

    for name in _MILLISECONDS:  # what is made at the first use is not measured
        seconds(name)
    for _ in range(bench.rounds):
        yield tuple(Sample(seconds(name) * 1000) for name in _MILLISECONDS)


MEASURES = (
    Measure(
        tuple(
            Figure(
                f"{name} query over {queries.TWINS:,} twins",
                "ms",
                reach=Reach(most, of_peer=False),
            )
            for name, most in _MILLISECONDS.items()
        ),
        search,
    ),
)
