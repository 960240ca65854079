"""Many devices: their identities, and their connections."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator, Sequence

from benchmarks import https, mqtt
from benchmarks.bench import Bench, End, Hub
from benchmarks.https import Caller
from benchmarks.wires import Loop, Wire

# What one bulk call takes (IoT Hub docs: identity registry).
_BULK = 100

# Connections that are being made at a time. Above 100, mosquitto's queue of them is full.
_AT_ONCE = 64

_names = itertools.count()


def new_ids(count: int) -> list[str]:
    """Make up device ids that were not used before."""
    return [f"bench-{number:06}" for number in itertools.islice(_names, count)]


def register(bench: Bench, hub: Hub, ids: Sequence[str]) -> None:
    """Make identities, by bulk calls.

    Raises:
        ValueError: the hub refused.
    """
    keys = {"primaryKey": hub.key, "secondaryKey": hub.key}
    authentication = {"type": "sas", "symmetricKey": keys}
    caller = Caller(hub.https, bench.trust())
    for start in range(0, len(ids), _BULK):
        items = [
            {"id": each, "importMode": "create", "authentication": authentication}
            for each in ids[start : start + _BULK]
        ]
        caller.call(https.request(hub, "POST", "/devices", items))
    caller.close()


class Fleet:
    """Devices that are connected to one server, and subscribed as an SDK's client is.

    Args:
        end: where they connect.
        hub: the hub that they show a token to; None for a broker, which asks for none.
    """

    def __init__(self, loop: Loop, end: End, trust: ssl.SSLContext, hub: Hub | None) -> None:
        self.ids: list[str] = []
        """Of those that are connected, in the order of their wires."""
        self.wires: list[Wire] = []
        self._loop = loop
        self._end = end
        self._trust = trust
        self._hub = hub
        self._subscribe = mqtt.subscribe(1, mqtt.FILTERS)
        self._answer = mqtt.suback(1, len(mqtt.FILTERS))

    def greetings(self, ids: Sequence[str]) -> list[tuple[str, bytes]]:
        """Encode the CONNECTs of devices: signing their tokens is none of the server's work."""
        return [(each, mqtt.greeting(each, self._hub)) for each in ids]

    def connect(self, greetings: Sequence[tuple[str, bytes]]) -> None:
        """Connect devices, some at a time; returns when each has its subscriptions.

        Raises:
            ValueError: the server refused one.
        """
        waiting = iter(greetings)
        wanted = len(self.wires) + len(greetings)
        for _ in range(_AT_ONCE):
            self._connect_next(waiting)
        self._loop.run(lambda: len(self.wires) == wanted)

    def close(self) -> None:
        """Cut all connections."""
        for wire in self.wires:
            wire.close()
        self.ids, self.wires = [], []

    def _connect_next(self, waiting: Iterator[tuple[str, bytes]]) -> None:
        each = next(waiting, None)
        if each is None:
            return
        device_id, connect = each
        received = b""

        def take(data: bytes) -> None:
            nonlocal received
            received += data
            if len(received) == 4:
                if received != mqtt.CONNACK + b"\x00\x00":
                    raise ValueError(f"{device_id} was refused: {received.hex()}")
                wire.send(self._subscribe)
            elif len(received) >= 4 + len(self._answer):
                if received[4:] != self._answer:
                    raise ValueError(f"{device_id} was sent {received[4:].hex()}")
                self.ids.append(device_id)
                self.wires.append(wire)
                self._connect_next(waiting)

        wire = Wire(self._loop, self._end, self._trust)
        wire.on_data = take
        wire.open(lambda: wire.send(connect))
