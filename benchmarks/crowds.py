"""Crowds: what each of thousands of connected devices costs, in memory and for its messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench, End, Hub, Measure, Round
from benchmarks.fleet import Fleet, new_ids, register
from benchmarks.meter import Meter, memory
from benchmarks.table import Figure, Reach, Sample, Work
from benchmarks.telemetry import OneByOne, messages
from benchmarks.wires import Loop

_SIZES = (1_000, 5_000)
_FEW = 10

# Until a server has dropped what it needed for the handshakes alone.
_REST_SECONDS = 1.0


class _Crowd:
    """The devices of one server."""

    def __init__(self, bench: Bench, end: End, hub: Hub | None) -> None:
        self._loop = Loop()
        self._fleet = Fleet(self._loop, end, bench.trust(), hub)
        self._pid = end.pid
        self._effort = bench.effort

    def grow(self, ids: Sequence[str]) -> None:
        """Connect the devices of these that are not connected yet."""
        new = ids[len(self._fleet.ids) :]
        self._fleet.connect(self._fleet.greetings(new))
        time.sleep(_REST_SECONDS)

    def memory_per_device(self, ids: Sequence[str], sizes: Sequence[int]) -> list[float]:
        """Connect more devices; gives the KB that each takes of the server when there are so many.

        What the server needs for its first is not counted.
        """
        first, before = len(self._fleet.ids), memory(self._pid)
        per_device = []
        for size in sizes:
            self.grow(ids[:size])
            per_device.append((memory(self._pid) - before) / (size - first) / 1024)
        return per_device

    def message_cost(self, *, in_turn: bool) -> tuple[float, Work]:
        """Measure the microseconds that the server works on one device's message.

        A few messages are on their way at a time, however many devices there are, so that what a
        server does once for several of them weighs the same.

        Args:
            in_turn: whether the next message comes from the next device, else from the same one.
        """
        connected = zip(self._fleet.wires, self._fleet.ids, strict=True)
        senders = [OneByOne(wire, device_id) for wire, device_id in connected]
        if in_turn:
            for number, sender in enumerate(senders):
                sender.next = senders[(number + _FEW) % len(senders)]
        meter = Meter(self._pid)
        count = messages(self._loop, senders, self._effort, meter, starting=_FEW)
        return meter.served[0] / count * 1e6, meter.work

    def close(self) -> None:
        """Go."""
        self._fleet.close()
        self._loop.close()


@dataclass(frozen=True)
class _Seen:
    """What one server had to do for each device: the figures, in the order of the table.

    Args:
        works: how busy it was; None for what was read when it wasn't.
    """

    figures: tuple[float, ...]
    works: tuple[Work | None, ...]


def _observe(
    bench: Bench, end: End, hub: Hub | None, ids: Sequence[str], sizes: Sequence[int]
) -> _Seen:
    crowd = _Crowd(bench, end, hub)
    crowd.grow(ids[:_FEW])
    # First, as it fills the hub's event log, which is no device's memory.
    few, few_work = crowd.message_cost(in_turn=False)
    per_device = crowd.memory_per_device(ids, sizes)
    among, among_work = crowd.message_cost(in_turn=False)
    turns, turns_work = crowd.message_cost(in_turn=True)
    crowd.close()
    return _Seen(
        (*per_device, few, among / few, turns / few),
        (*[None] * len(sizes), few_work, among_work, turns_work),
    )


def grow(bench: Bench) -> Iterator[Round]:
    """Measure each server with a few devices, with more, and with a crowd."""
    sizes = [bench.effort.devices(size) for size in _SIZES]
    for _ in range(bench.rounds):
        ids = new_ids(sizes[-1])
        register(bench, bench.hub, ids)
        hub = _observe(bench, bench.hub.mqtt, bench.hub, ids, sizes)
        mosquitto, nod = (
            None if end is None else _observe(bench, end, None, ids, sizes)
            for end in (bench.mosquitto, bench.nod)
        )
        samples = [_beside(hub, mosquitto, number) for number in range(len(hub.figures))]
        yield (*samples, _beside(hub, nod, -1))


def _beside(hub: _Seen, peer: _Seen | None, number: int) -> Sample:
    if peer is None:
        return Sample(hub.figures[number], None, hub.works[number])
    return Sample(hub.figures[number], peer.figures[number], hub.works[number], peer.works[number])


_FLAT = Reach(1.2, of_peer=False)

MEASURES = (
    Measure(
        (
            *(
                Figure(f"memory of an idle device, {size:,} devices", "KB", "mosquitto", Reach(3.0))
                for size in _SIZES
            ),
            Figure(f"a message's cost, {_FEW} devices", "µs", "mosquitto"),
            Figure(f"its growth, {_FEW} of {_SIZES[-1]:,} devices send", "x", "mosquitto", _FLAT),
            Figure(f"its growth, {_SIZES[-1]:,} devices in turn", "x", "mosquitto", _FLAT),
            Figure("the same growth, beside a bare event loop", "x", "nod"),
        ),
        grow,
        mosquitto=True,
        nod=True,
        devices=_SIZES[-1],
        fresh=True,
        most_rounds=3,
    ),
)
