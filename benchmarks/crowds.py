"""Crowds: how fast devices connect, and what each of thousands costs a server."""

from __future__ import annotations

import time

import psutil

from benchmarks import mqtt
from benchmarks.bench import Bench, Meter, measure
from benchmarks.devices import connect, register
from benchmarks.servers import Server
from benchmarks.table import Reading, Row, Sample
from benchmarks.telemetry import OneByOne

_ARRIVALS = 1_000
_CROWD = 5_000
_FEW = 10

# How long a server needs to free what the handshakes took.
_REST_SECONDS = 1.0


@measure(
    Row(f"connect and subscribe, {_ARRIVALS:,} devices", "/s", "mosquitto", ">= 0.9 x"),
    servers=("emulator", "mosquitto"),
)
def arrivals(bench: Bench) -> list[Sample]:
    """Measure new devices, from the TLS handshake to the SUBACK."""
    ids = bench.devices(_ARRIVALS)
    register(bench, ids)

    def rate(server: Server) -> Reading:
        connects = [*map(mqtt.connect, ids)]
        with Meter(server) as meter:
            connect(bench, server, connects)
        return Reading(len(ids) / meter.seconds, meter.cpu)

    rates = bench.each(rate)
    return [(rates["emulator"], rates.get("mosquitto"))]


@measure(
    Row(f"memory of an idle device, {_CROWD:,} devices", "KB", "mosquitto", "<= 3 x"),
    Row(f"CPU time of a message, {_FEW} devices", "µs", "mosquitto"),
    Row(f"its growth, {_FEW} of {_CROWD:,} devices send", "x", "mosquitto", "<= 1.2"),
    Row(f"its growth, {_CROWD:,} devices in turn", "x", "mosquitto", "<= 1.2"),
    Row("the same growth, beside a bare event loop", "x", "nod"),
    servers=("emulator", "mosquitto", "nod"),
    rounds=3,
)
def crowd(bench: Bench) -> list[Sample]:
    """Measure each server with a few devices, then with a crowd."""
    ids = bench.devices(_CROWD)
    register(bench, ids)
    found = bench.each(lambda server: _crowd(bench, server, ids))
    hub, mosquitto = found["emulator"], found.get("mosquitto", [None] * 4)
    return [*zip(hub, mosquitto, strict=True), (hub[-1], found["nod"][-1])]


def _crowd(bench: Bench, server: Server, ids: list[str]) -> list[Reading]:
    """Return a reading of each row for one server.

    A few messages are in flight at a time, however many devices send.
    """
    wires = connect(bench, server, [*map(mqtt.connect, ids[:_FEW])])
    senders = [OneByOne(*device) for device in zip(wires, ids, strict=False)]
    # First, because it fills the event log of the hub: that is not the memory of a device.
    few = bench.drive(senders, server).cost
    process = psutil.Process(server.pid)
    before = process.memory_full_info().uss
    wires = connect(bench, server, [*map(mqtt.connect, ids[_FEW:])])
    time.sleep(_REST_SECONDS)
    memory = (process.memory_full_info().uss - before) / len(wires) / 1024
    among = bench.drive(senders, server).cost
    senders += [OneByOne(*device) for device in zip(wires, ids[_FEW:], strict=True)]
    for number, sender in enumerate(senders):
        sender.next = senders[(number + _FEW) % len(senders)]
    turns = bench.drive(senders, server, first=_FEW).cost
    growth = [Reading(each.value / few.value, each.cpu) for each in (among, turns)]
    return [Reading(memory), few, *growth]
