"""How long queries take over 10,000 twins: `python -m benchmarks.queries`.

A hub in this process is filled, and each query is asked several times. Machines differ, so beside
each time stands its ratio to a floor that is measured in the same run: a bare loop of Python over
the same rows that reads one member of each.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable

from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey

TWINS = 10_000
ROUNDS = 15
PAGE = 100

QUERIES = {
    "point": "SELECT * FROM devices WHERE deviceId = 'device-05000'",
    "range": (
        "SELECT deviceId, properties.reported.temperature AS t FROM devices "
        "WHERE properties.reported.temperature >= 20 AND properties.reported.temperature < 80"
    ),
    "aggregate": (
        "SELECT tags.location.region AS region, COUNT() AS n, "
        "AVG(properties.reported.temperature) AS t FROM devices GROUP BY tags.location.region"
    ),
    "first page": "SELECT * FROM devices",
}


def filled_hub() -> IotHub:
    """Make a hub with twins that have some tags, desired and reported properties each."""
    hub = IotHub(store=MemoryStore(), policies=(), hosts=())
    for number in range(TWINS):
        key = IdentityKey(f"device-{number:05}")
        hub.registry.put_device(key.device_id, {"deviceId": key.device_id}, IfMatch(None))
        service = {
            "tags": {"location": {"region": f"region-{number % 7}", "floor": number % 10}},
            "properties": {"desired": {"interval": number % 60}},
        }
        hub.registry.patch_twin(key, service, IfMatch(None))
        device = {"temperature": number % 100 + 0.5, "firmware": f"1.{number % 5}"}
        hub.registry.report(key, device, None)
    return hub


def read_one_member(hub: IotHub) -> Callable[[], object]:
    """Make the floor: the least that anything does which looks at each twin."""
    rows = list(hub.registry.device_rows())

    def floor() -> int:
        found = 0
        for row in rows:
            if row.twin.reported.values["temperature"] == 0.5:
                found += 1
        return found

    return floor


def times(work: Callable[[], object]) -> list[float]:
    """Measure rounds of work, in milliseconds each; the first is not counted."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1000)
    return taken


def report(name: str, taken: Iterable[float], floor: float) -> str:
    """Write one line of the table."""
    taken = sorted(taken)
    median = statistics.median(taken)
    return f"{name:12}{median:9.2f} ms {taken[0]:9.2f} ms {taken[0] / floor:8.1f}"


def main() -> None:
    """Measure, and print a table."""
    hub = filled_hub()
    floors = times(read_one_member(hub))
    floor = min(floors)
    print(f"{TWINS:,} twins, {ROUNDS} rounds")
    print(f"{'':12}{'median':>12} {'least':>12} {'/ floor':>8}")
    print(report("floor", floors, floor))
    for name, text in QUERIES.items():
        ask = functools.partial(hub.queries.run, text, size=PAGE, continuation=None)
        print(report(name, times(ask), floor))


if __name__ == "__main__":
    main()
