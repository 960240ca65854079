"""Arrivals: how many devices a second connect over TLS and subscribe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench, End, Hub, Measure, Round
from benchmarks.fleet import Fleet, new_ids, register
from benchmarks.meter import Meter
from benchmarks.table import Figure, Reach, Sample, Work
from benchmarks.wires import Loop

_DEVICES = 1_000

# How long a server may take to clear up behind the devices of one turn, before the next.
_REST_SECONDS = 0.5


def arrive(bench: Bench) -> Iterator[Round]:
    """Measure devices that were never seen before, from their TLS handshake to their SUBACK."""
    for _ in range(bench.rounds):
        ids = new_ids(bench.effort.devices(_DEVICES))
        register(bench, bench.hub, ids)
        rate, work = _rate(bench, bench.hub.mqtt, bench.hub, ids)
        if bench.mosquitto is None:
            yield (Sample(rate, None, work),)
        else:
            peer, peer_work = _rate(bench, bench.mosquitto, None, ids)
            yield (Sample(rate, peer, work, peer_work),)


def _rate(bench: Bench, end: End, hub: Hub | None, ids: Sequence[str]) -> tuple[float, Work]:
    loop, meter = Loop(), Meter(end.pid)
    fleet = Fleet(loop, end, bench.trust(), hub)
    greetings = fleet.greetings(ids)
    with meter:
        fleet.connect(greetings)
    fleet.close()
    loop.close()
    time.sleep(_REST_SECONDS)
    return len(ids) / meter.seconds, meter.work


MEASURES = (
    Measure(
        (
            Figure(
                f"connect and subscribe, {_DEVICES:,} devices",
                "/s",
                "mosquitto",
                Reach(0.9, at_most=False),
            ),
        ),
        arrive,
        mosquitto=True,
        devices=_DEVICES,
        fresh=True,
    ),
)
