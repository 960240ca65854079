"""Twins: how long it takes to read and to patch one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from benchmarks import https
from benchmarks.bench import Bench, Measure, Round
from benchmarks.fleet import new_ids, register
from benchmarks.https import Caller
from benchmarks.meter import Meter
from benchmarks.table import Figure, Reach, Sample, percentile
from benchmarks.turns import in_turns

_PATCH = {
    "tags": {"location": {"region": "eu", "floor": 3}},
    "properties": {"desired": {"interval": 30, "unit": "C"}},
}


def read_and_patch(bench: Bench) -> Iterator[Round]:
    """Measure reading a twin, and patching a desired property: each patch changes its value."""
    path = f"/twins/{_device_with_a_twin(bench)}"
    bodies = [{"properties": {"desired": {"interval": interval}}} for interval in (10, 20)]
    reads = [https.request(bench.hub, "GET", path)]
    patches = [https.request(bench.hub, "PATCH", path, body) for body in bodies]
    for _ in range(bench.rounds):
        yield _compare(bench, reads), _compare(bench, patches)


def _device_with_a_twin(bench: Bench) -> str:
    (device_id,) = new_ids(1)
    register(bench, bench.hub, [device_id])
    caller = Caller(bench.hub.https, bench.trust())
    caller.call(https.request(bench.hub, "PATCH", f"/twins/{device_id}", _PATCH))
    caller.close()
    return device_id


def _compare(bench: Bench, requests: list[bytes]) -> Sample:
    """Send requests to the hub, one after the other, and the same to the bare server."""
    hello = bench.hello
    if hello is None:
        raise ValueError("there is no bare server to compare with")
    caller, peer = Caller(bench.hub.https, bench.trust()), Caller(hello, bench.trust())
    turn, peer_turn = itertools.cycle(requests), itertools.cycle(requests)
    meter, peer_meter = Meter(bench.hub.https.pid), Meter(hello.pid)
    times, peer_times = in_turns(
        lambda: caller.call(next(turn)),
        lambda: peer.call(next(peer_turn)),
        bench.effort,
        meter,
        peer_meter,
    )
    caller.close()
    peer.close()
    return Sample(percentile(times, 0.5), percentile(peer_times, 0.5), meter.work, peer_meter.work)


MEASURES = (
    Measure(
        (
            Figure("twin read, p50", "ms", "hello", Reach(1.5)),
            Figure("twin patch, p50", "ms", "hello", Reach(1.5)),
        ),
        read_and_patch,
        hello=True,
        fresh=True,
    ),
)
