"""Telemetry: how many messages a second a server acknowledges, QoS 1, over TLS.

A message has 100 bytes. The emulator stamps each message, writes it into its file, and keeps the
last 10,000 in its event log. No client subscribes to the messages, so mosquitto keeps none of them.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import mqtt
from benchmarks.bench import Bench, Client, measure
from benchmarks.devices import connect, register
from benchmarks.servers import Server
from benchmarks.table import Reading, Row, Sample
from benchmarks.wires import Wire

_PIPELINED = 8
_ONE_BY_ONE = 1_000

_PAYLOAD = b'{"temperature":21.5,"padding":"' + b"x" * 67 + b'"}'

# What a device that does not wait has in flight: so many blocks, each written as one piece.
_BLOCKS = 4
_BLOCK_MESSAGES = 64


def message(device_id: str, packet_id: int = 1) -> bytes:
    """Encode a message of a device."""
    return mqtt.publish(f"devices/{device_id}/messages/events/".encode(), _PAYLOAD, packet_id)


class Pipeline(Client):
    """A device that sends without waiting, up to a bound."""

    def __init__(self, wire: Wire, device_id: str) -> None:
        super().__init__()
        self._wire = wire
        wire.on_data = self._take
        self._started = 0
        self._received = 0
        self._blocks = [
            b"".join(message(device_id, start + number) for number in range(_BLOCK_MESSAGES))
            for start in range(1, _BLOCKS * _BLOCK_MESSAGES, _BLOCK_MESSAGES)
        ]

    def _send(self) -> None:
        room = _BLOCKS * _BLOCK_MESSAGES - (self._started - self.count)
        for _ in range(room // _BLOCK_MESSAGES):
            self._wire.send(self._blocks[self._started // _BLOCK_MESSAGES % _BLOCKS])
            self._started += _BLOCK_MESSAGES

    def _take(self, data: bytes) -> None:
        self._received += len(data)  # nothing but PUBACKs
        self.count = self._received // mqtt.PUBACK_BYTES
        self.idle = self.count == self._started
        if self.going:
            self.send()


class OneByOne(Client):
    """A device that sends a message when the one before it is acknowledged.

    The message before it is its own, unless `next` of another device names it.
    """

    def __init__(self, wire: Wire, device_id: str) -> None:
        super().__init__()
        self.next: OneByOne = self
        """The device that sends next."""
        self._wire = wire
        self._message = message(device_id)
        wire.on_data = self._take

    def _send(self) -> None:
        self._wire.send(self._message)

    def _take(self, data: bytes) -> None:
        if len(data) != mqtt.PUBACK_BYTES:
            raise ValueError(f"not a PUBACK: {data.hex()}")
        self.count += 1
        self.idle = True
        if self.going:
            self.next.send()


def _rates(bench: Bench, count: int, kind: type[Pipeline] | type[OneByOne]) -> dict[str, Reading]:
    ids = bench.devices(count)
    for name in ("emulator", "in memory"):
        if server := bench.servers.get(name):
            register(replace(bench, servers={"emulator": server}), ids)

    def rate(server: Server) -> Reading:
        wires = connect(bench, server, [*map(mqtt.connect, ids)])
        return bench.drive([kind(*each) for each in zip(wires, ids, strict=True)], server).rate

    return bench.each(rate)


@measure(
    Row(f"QoS 1 telemetry on disk, {_PIPELINED} devices, pipelined", "/s", "mosquitto", ">= 1 x"),
    servers=("emulator", "mosquitto"),
)
def pipelined(bench: Bench) -> list[Sample]:
    """Measure few devices that do not wait."""
    rates = _rates(bench, _PIPELINED, Pipeline)
    return [(rates["emulator"], rates.get("mosquitto"))]


@measure(
    Row(f"QoS 1 telemetry, {_ONE_BY_ONE:,} devices, one at a time", "/s", "mosquitto", ">= 1 x"),
    Row("the same, beside a bare event loop", "/s", "nod"),
    Row("the same, beside a hub that keeps nothing", "/s", "in memory"),
    servers=("emulator", "mosquitto", "nod", "in memory"),
)
def one_by_one(bench: Bench) -> list[Sample]:
    """Measure many devices that wait for each answer."""
    rates = _rates(bench, _ONE_BY_ONE, OneByOne)
    return [(rates["emulator"], rates.get(peer)) for peer in ("mosquitto", "nod", "in memory")]
