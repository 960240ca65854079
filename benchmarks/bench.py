"""One round of a measure: its servers, its connections, and the one way to measure."""

from __future__ import annotations

import contextlib
import gc
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import psutil

from benchmarks.servers import CA, Server, running
from benchmarks.table import Cpu, Reading, Row, Sample, percentile
from benchmarks.wires import Loop

_T = TypeVar("_T")

_SECONDS, _QUICK_SECONDS = 1.5, 0.2
_QUICK_SHARE = 10


class Client:
    """Sends a request, and the next one when the answer is there."""

    def __init__(self) -> None:
        self.going = False
        """Whether each answer is followed by the next request."""
        self.count = 0
        """How many requests were answered."""
        self.times: list[float] = []
        """How long each of them took, in milliseconds."""
        self.idle = True
        """Whether all requests are answered."""

    def send(self) -> None:
        """Send a request."""
        self.idle = False
        self._sent = time.perf_counter()
        self._send()

    def answered(self) -> None:
        """Count an answer, and send the next request."""
        self.times.append((time.perf_counter() - self._sent) * 1000)
        self.count += 1
        self.idle = True
        if self.going:
            self.send()

    def _send(self) -> None:
        """Send the bytes of a request; overridden by each kind of client."""
        raise NotImplementedError


class Meter:
    """Measures the time of a `with` block, and the CPU time of the processes in it."""

    def __init__(self, *servers: Server) -> None:
        self._servers = [psutil.Process(server.pid) for server in servers]

    def __enter__(self) -> Meter:
        self._before = self._times()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._times()
        self.seconds, machine, client, *servers = (
            end - begin for begin, end in zip(self._before, after, strict=True)
        )
        self.served = max(servers)
        """The CPU seconds of the busiest server."""
        others = max(0.0, machine - client - sum(servers))
        self.cpu = Cpu(*(each / self.seconds for each in (self.served, client, others)))

    def _times(self) -> list[float]:
        machine = psutil.cpu_times()
        # Linux counts the time of a guest twice. Stolen time counts as work of others.
        twice = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - twice
        served = [sum(each.cpu_times()[:2]) for each in self._servers]
        return [time.perf_counter(), busy, time.process_time(), *served]


@dataclass(frozen=True)
class Run:
    """What some clients did in a time.

    Args:
        count: the requests that were answered.
        times: how long each of them took, in milliseconds.
    """

    count: int
    times: Sequence[float]
    meter: Meter

    @property
    def rate(self) -> Reading:
        """The requests of a second."""
        return Reading(self.count / self.meter.seconds, self.meter.cpu)

    def percentile(self, share: float) -> Reading:
        """Return the time of a request, in milliseconds."""
        return Reading(percentile(self.times, share), self.meter.cpu)

    @property
    def cost(self) -> Reading:
        """The CPU time of the server for a request, in microseconds."""
        return Reading(self.meter.served / self.count * 1e6, self.meter.cpu)


@dataclass(frozen=True)
class Bench:
    """What a measure works with in one round.

    Args:
        servers: the running servers, by name; a server that is not installed is missing.
        number: the number of the round.
    """

    servers: Mapping[str, Server]
    loop: Loop
    folder: Path
    number: int
    quick: bool

    @property
    def hub(self) -> Server:
        """The emulator."""
        return self.servers["emulator"]

    def devices(self, count: int) -> list[str]:
        """Return the ids of so many devices; of a tenth as many in a quick run."""
        count = max(1, count // _QUICK_SHARE) if self.quick else count
        return [f"device-{number:05}" for number in range(count)]

    def in_turns(self, **sides: Callable[[], _T]) -> dict[str, _T]:
        """Call each side; in every second round, in the opposite order."""
        names = list(sides)[:: -1 if self.number % 2 else 1]
        return {name: sides[name]() for name in names}

    def each(self, function: Callable[[Server], _T]) -> dict[str, _T]:
        """Call a function for each running server, in turns; return the results by name."""
        sides = {name: partial(function, server) for name, server in self.servers.items()}
        return self.in_turns(**sides)

    def drive(self, clients: Sequence[Client], *servers: Server, first: int | None = None) -> Run:
        """Let clients send for a time, after they have sent for a fifth of it unmeasured.

        Args:
            servers: the servers that work meanwhile.
            first: how many clients begin; all by default.
        """
        seconds = _QUICK_SECONDS if self.quick else _SECONDS
        for client in clients:
            client.going = True
        for client in clients[:first]:
            client.send()
        self.loop.run_for(seconds / 5)
        before = sum(client.count for client in clients)
        for client in clients:
            client.times.clear()
        gc.collect()
        gc.freeze()  # the collector has nothing to look at while the clients send
        with Meter(*servers) as meter:
            self.loop.run_for(seconds)
            count = sum(client.count for client in clients) - before
        gc.unfreeze()
        times = [each for client in clients for each in client.times]
        for client in clients:
            client.going = False
        self.loop.run(lambda: all(client.idle for client in clients))
        return Run(count, times, meter)


_Round = Callable[[Bench], list[Sample]]


@dataclass(frozen=True)
class Measure:
    """Rows that are measured together; see `measure`."""

    rows: Sequence[Row]
    servers: Sequence[str]
    rounds: int
    run: _Round

    def round(self, number: int, *, quick: bool) -> list[Sample]:
        """Measure one round with new servers; return a sample for each row.

        Raises:
            ProgramError: a server does not start.
            OSError, ValueError: a server does not answer as it should.
            psutil.Error: the system does not tell the memory of a server.
        """
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
            servers: dict[str, Server] = {}
            for name in self.servers:
                if server := stack.enter_context(running(name, folder)):
                    servers[name] = server
                    trust.load_verify_locations(folder / CA)
            loop = stack.enter_context(contextlib.closing(Loop(trust)))
            return self.run(Bench(servers, loop, folder, number, quick))


def measure(
    *rows: Row, servers: Sequence[str] = (), rounds: int = 5
) -> Callable[[_Round], Measure]:
    """Make a measure of a function that measures one round.

    The function returns a sample for each row: the reading of the emulator and of the peer, or None
    for a peer that is not installed. Each round has new servers: the same program is up to 10 %
    faster or slower after a new start, because its memory lies elsewhere.

    Args:
        servers: names in `benchmarks.servers.SERVERS`; the emulator is the first, because it
            creates the certificates.
        rounds: the number of rounds by default.
    """
    return lambda run: Measure(rows, servers, rounds, run)
