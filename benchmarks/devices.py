"""Devices: their identities, and their connections to a server."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import https, mqtt
from benchmarks.bench import Bench
from benchmarks.servers import Server
from benchmarks.wires import Wire

# How many identities a bulk request takes (IoT Hub docs: identity registry).
_BULK = 100

# How many connections are made at a time. Above 100, the queue of mosquitto is full.
_AT_ONCE = 64


def register(bench: Bench, ids: Sequence[str]) -> None:
    """Create identities in the hub by bulk requests."""
    keys = {"primaryKey": https.KEY, "secondaryKey": https.KEY}
    bulk(bench, ids, importMode="create", authentication={"type": "sas", "symmetricKey": keys})


def bulk(bench: Bench, ids: Sequence[str], **fields: object) -> None:
    """Create or change identities by bulk requests; each has the same fields."""
    caller = https.Caller(bench.loop, bench.hub)
    for start in range(0, len(ids), _BULK):
        items = [{"id": each, **fields} for each in ids[start : start + _BULK]]
        caller.call(https.request(bench.hub, "POST", "/devices", items))


def connect(
    bench: Bench, server: Server, connects: Sequence[bytes], filters: Sequence[bytes] = mqtt.FILTERS
) -> list[Wire]:
    """Connect devices, some at a time; return their connections when all have subscribed.

    Args:
        connects: the CONNECT of each device.
        filters: what each device subscribes to.

    Raises:
        ValueError: the server refused a device.
    """
    subscribe, suback = mqtt.subscribe(filters), mqtt.suback(filters)
    waiting = iter(connects)
    wires: list[Wire] = []
    subscribed: list[Wire] = []

    def connect_next() -> None:
        greeting = next(waiting, None)
        if greeting is None:
            return
        wire = Wire(bench.loop, server.ports["mqtt"])
        wires.append(wire)

        def take(answer: bytes) -> None:
            if answer == mqtt.CONNACK:
                wire.send(subscribe)
            elif answer == suback:
                subscribed.append(wire)
                connect_next()
            else:
                raise ValueError(f"the server refused a device: {answer.hex()}")

        wire.take(mqtt.whole, take)
        wire.open(lambda: wire.send(greeting))

    for _ in range(_AT_ONCE):
        connect_next()
    bench.loop.run(lambda: len(subscribed) == len(connects))
    return wires
