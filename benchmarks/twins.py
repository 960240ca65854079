"""Twins: how long it takes to read one, to patch one, and to query many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks import https
from benchmarks.bench import Bench, measure
from benchmarks.devices import bulk, register
from benchmarks.servers import Server
from benchmarks.table import Reading, Row, Sample

_TWINS = 10_000


def _median(bench: Bench, requests: Sequence[bytes], server: Server) -> Reading:
    return bench.drive([https.Caller(bench.loop, server, requests)], server).percentile(0.5)


@measure(
    Row("twin read, p50", "ms", "hello", "<= 1.5 x"),
    Row("twin patch, p50", "ms", "hello", "<= 1.5 x"),
    servers=("emulator", "hello"),
)
def read_and_patch(bench: Bench) -> list[Sample]:
    """Measure reads of a twin, and patches each of which changes a desired property."""
    tags = {"location": {"region": "eu", "floor": 3}}
    (device_id,) = bench.devices(1)
    register(bench, [device_id])
    bulk(bench, [device_id], importMode="updateTwin", tags=tags)
    path = f"/twins/{device_id}"
    bodies = [{"properties": {"desired": {"interval": each, "unit": "C"}}} for each in (10, 20)]
    reads = [https.request(bench.hub, "GET", path)]
    patches = [https.request(bench.hub, "PATCH", path, body) for body in bodies]
    both = [bench.each(partial(_median, bench, each)) for each in (reads, patches)]
    return [(each["emulator"], each["hello"]) for each in both]


@measure(
    Row("twin patch with the state on disk, p50", "ms", "in memory", "<= 1.3 x"),
    servers=("emulator", "in memory"),
)
def patch_on_disk(bench: Bench) -> list[Sample]:
    """Measure what a patch costs more than in an emulator that keeps nothing."""
    (device_id,) = bench.devices(1)
    for server in bench.servers.values():
        register(replace(bench, servers={"emulator": server}), [device_id])
    bodies = [{"properties": {"desired": {"interval": each, "unit": "C"}}} for each in (10, 20)]

    def median(server: Server) -> Reading:
        path = f"/twins/{device_id}"
        return _median(
            bench, [https.request(server, "PATCH", path, body) for body in bodies], server
        )

    times = bench.each(median)
    return [(times["emulator"], times["in memory"])]


_QUERIES = {
    "point": ("SELECT * FROM devices WHERE deviceId = 'device-00500'", "<= 100"),
    "range": (
        "SELECT deviceId, tags.temperature AS t FROM devices "
        "WHERE tags.temperature >= 20 AND tags.temperature < 80",
        "<= 200",
    ),
    "aggregate": (
        "SELECT tags.location.region AS region, COUNT() AS n, AVG(tags.temperature) AS t "
        "FROM devices GROUP BY tags.location.region",
        "<= 300",
    ),
}


@measure(
    *(
        Row(f"{name} query over {_TWINS:,} twins, p50", "ms", reach=reach)
        for name, (_, reach) in _QUERIES.items()
    ),
    servers=("emulator",),
    rounds=3,
)
def queries(bench: Bench) -> list[Sample]:
    """Measure queries over HTTPS; each returns its first page."""
    ids = bench.devices(_TWINS)
    register(bench, ids)
    for kind in range(100):  # twins of one bulk request have the same tags
        tags = {"location": {"region": f"region-{kind % 7}", "floor": 3}, "temperature": kind + 0.5}
        bulk(bench, ids[kind::100], importMode="updateTwin", tags=tags)
    requests = [
        https.request(bench.hub, "POST", "/devices/query", {"query": query})
        for query, _ in _QUERIES.values()
    ]
    return [(_median(bench, [each], bench.hub), None) for each in requests]
