"""Telemetry: how many messages a second a server takes and acknowledges, QoS 1, over TLS.

A message has 100 bytes. The hub stamps each and keeps it in its event log; mosquitto has nobody to
hand it to, and keeps nothing; nod doesn't even read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from benchmarks import mqtt
from benchmarks.bench import Bench, Effort, End, Hub, Measure, Round
from benchmarks.fleet import Fleet, new_ids, register
from benchmarks.meter import Meter
from benchmarks.table import Figure, Reach, Sample, Work
from benchmarks.wires import Loop, Wire

PAYLOAD = b'{"temperature":21.5,"padding":"' + b"x" * 67 + b'"}'

_PIPELINED = 8
_ONE_BY_ONE = 1_000

# What a device has in flight when it doesn't wait: so many blocks, each written as one piece.
_BLOCKS = 4
_BLOCK_MESSAGES = 64


def topic(device_id: str) -> str:
    """Name what a device publishes to."""
    return f"devices/{device_id}/messages/events/"


class Sender(Protocol):
    """A device that sends, and sends again when it is answered."""

    acknowledged: int
    """How many of its messages were."""
    going: bool
    """Whether each answer is followed by the next message."""

    def send(self) -> None:
        """Send the first."""

    @property
    def idle(self) -> bool:
        """Whether all that was sent is acknowledged."""


class Pipeline:
    """A device that sends without waiting, up to a bound."""

    def __init__(self, wire: Wire, device_id: str) -> None:
        self.acknowledged = 0
        self.going = False
        self._sent = 0
        self._answered = 0
        self._wire = wire
        wire.on_data = self._take
        self._blocks = [
            b"".join(
                mqtt.publish(topic(device_id), PAYLOAD, block * _BLOCK_MESSAGES + number)
                for number in range(1, _BLOCK_MESSAGES + 1)
            )
            for block in range(_BLOCKS)
        ]

    @property
    def idle(self) -> bool:
        """Whether all that was sent is acknowledged."""
        return self.acknowledged == self._sent

    def send(self) -> None:
        """Fill the pipe."""
        room = _BLOCKS * _BLOCK_MESSAGES - (self._sent - self.acknowledged)
        for _ in range(room // _BLOCK_MESSAGES):
            self._wire.send(self._blocks[self._sent // _BLOCK_MESSAGES % _BLOCKS])
            self._sent += _BLOCK_MESSAGES

    def _take(self, data: bytes) -> None:
        # A PUBACK has 4 bytes, and nothing else is sent to such a device.
        self._answered += len(data)
        self.acknowledged = self._answered // mqtt.PUBACK_BYTES
        if self.going:
            self.send()


class OneByOne:
    """A device that sends a message when the one before it is acknowledged: its own, unless `next`
    says otherwise.
    """

    def __init__(self, wire: Wire, device_id: str) -> None:
        self.acknowledged = 0
        self.going = False
        self.idle = True
        self.next: OneByOne = self
        """Who sends next."""
        self._wire = wire
        wire.on_data = self._take
        self._message = mqtt.publish(topic(device_id), PAYLOAD, 1)

    def send(self) -> None:
        """Send one message."""
        self.idle = False
        self._wire.send(self._message)

    def _take(self, data: bytes) -> None:
        if len(data) != mqtt.PUBACK_BYTES:
            raise ValueError(f"no PUBACK: {data.hex()}")
        self.acknowledged += 1
        self.idle = True
        if self.going:
            self.next.send()


def messages(
    loop: Loop,
    senders: Sequence[Sender],
    effort: Effort,
    meter: Meter,
    *,
    starting: int | None = None,
) -> int:
    """Let devices send for a time; gives how many messages were acknowledged in it.

    Args:
        starting: how many of them send by themselves; all, if it isn't said.
    """
    for sender in senders:
        sender.going = True
    for sender in senders[:starting]:
        sender.send()
    loop.run_for(effort.seconds / 5)
    before = sum(sender.acknowledged for sender in senders)
    with meter:
        loop.run_for(effort.seconds)
        after = sum(sender.acknowledged for sender in senders)
    for sender in senders:
        sender.going = False
    loop.run(lambda: all(sender.idle for sender in senders))
    return after - before


MakeSender = Callable[[Wire, str], Sender]


class _Side:
    """One server with its devices."""

    def __init__(
        self, bench: Bench, end: End, hub: Hub | None, ids: Sequence[str], make: MakeSender
    ) -> None:
        self._loop = Loop()
        self._effort = bench.effort
        self._pid = end.pid
        self._fleet = Fleet(self._loop, end, bench.trust(), hub)
        self._fleet.connect(self._fleet.greetings(ids))
        connected = zip(self._fleet.wires, self._fleet.ids, strict=True)
        self._senders = [make(wire, device_id) for wire, device_id in connected]

    def rate(self) -> tuple[float, Work]:
        """Measure the messages in a second."""
        meter = Meter(self._pid)
        count = messages(self._loop, self._senders, self._effort, meter)
        return count / meter.seconds, meter.work

    def close(self) -> None:
        """Go."""
        self._fleet.close()
        self._loop.close()


def _compare(
    bench: Bench, devices: int, make: MakeSender, ends: Sequence[End | None]
) -> Iterator[Round]:
    """Measure the hub beside each of these servers; one that is None isn't there."""
    ids = new_ids(devices)
    register(bench, bench.hub, ids)
    hub = _Side(bench, bench.hub.mqtt, bench.hub, ids, make)
    peers = [None if end is None else _Side(bench, end, None, ids, make) for end in ends]
    sides = [hub, *(peer for peer in peers if peer is not None)]
    for number in range(bench.rounds):
        # Who is first changes from round to round.
        turn = sides if number % 2 == 0 else sides[::-1]
        measured = {side: side.rate() for side in turn}
        rate, work = measured[hub]
        beside = [(None, None) if peer is None else measured[peer] for peer in peers]
        yield tuple(Sample(rate, peer_rate, work, peer_work) for peer_rate, peer_work in beside)
    for side in sides:
        side.close()


def pipelined(bench: Bench) -> Iterator[Round]:
    """Measure few devices that don't wait."""
    return _compare(bench, _PIPELINED, Pipeline, [bench.mosquitto])


def one_by_one(bench: Bench) -> Iterator[Round]:
    """Measure many devices that wait for each answer."""
    devices = bench.effort.devices(_ONE_BY_ONE)
    return _compare(bench, devices, OneByOne, [bench.mosquitto, bench.nod])


MEASURES = (
    Measure(
        (
            Figure(
                f"QoS 1 telemetry, {_PIPELINED} devices, pipelined",
                "/s",
                "mosquitto",
                Reach(1.0, at_most=False),
            ),
        ),
        pipelined,
        mosquitto=True,
        devices=2 * _PIPELINED,
    ),
    Measure(
        (
            Figure(
                f"QoS 1 telemetry, {_ONE_BY_ONE:,} devices, one at a time",
                "/s",
                "mosquitto",
                Reach(1.0, at_most=False),
            ),
            Figure("the same, beside a bare event loop", "/s", "nod"),
        ),
        one_by_one,
        mosquitto=True,
        nod=True,
        devices=3 * _ONE_BY_ONE,
    ),
)
