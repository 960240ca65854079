"""Direct methods: how long a call takes, and how many calls are answered in a second."""

from __future__ import annotations

from functools import partial

from benchmarks import https, mqtt
from benchmarks.bench import Bench, measure
from benchmarks.devices import connect, register
from benchmarks.servers import Server
from benchmarks.table import Row, Sample
from benchmarks.wires import Wire

_CALLERS = 64

# The payload of the method and of its answer: 100 bytes of JSON each.
_PAYLOAD = {"padding": "x" * 86}
_ANSWER = b'{"padding":"' + b"x" * 86 + b'"}'

_PEERS = "mosquitto + hello"


def _invocation(hub: Server, device_id: str) -> bytes:
    body = {"methodName": "reboot", "payload": _PAYLOAD, "responseTimeoutInSeconds": 30}
    return https.request(hub, "POST", f"/twins/{device_id}/methods", body)


class _Floor(https.Caller):
    """A request and its reply through a broker, then an HTTPS round trip with the same request."""

    def __init__(self, bench: Bench, broker: Server, hello: Server) -> None:
        super().__init__(bench.loop, hello)
        (device,) = connect(bench, broker, [mqtt.connect("device")], [b"requests/#"])
        (self._service,) = connect(bench, broker, [mqtt.connect("service")], [b"answers/#"])
        # These topics are as long as those of a direct method.
        self._question = mqtt.publish(b"requests/POST/reboot/?$rid=1", _ANSWER)
        answer = mqtt.publish(b"answers/res/200/?$rid=1", _ANSWER)
        request = _invocation(bench.hub, "device")
        device.take(mqtt.whole, lambda _: device.send(answer))
        self._service.take(mqtt.whole, lambda _: self.wire.send(request))

    def _send(self) -> None:
        self._service.send(self._question)


def _callers(bench: Bench, count: int) -> list[https.Caller]:
    """Connect devices that answer, and a caller for each of them."""
    ids = bench.devices(count)
    register(bench, ids)
    for wire in connect(bench, bench.hub, [*map(mqtt.connect, ids)]):
        wire.take(mqtt.whole, partial(_answer, wire))
    return [https.Caller(bench.loop, bench.hub, [_invocation(bench.hub, each)]) for each in ids]


def _answer(device: Wire, request: bytes) -> None:
    device.send(mqtt.method_answer(request, _ANSWER))


@measure(
    Row("direct method round trip, p50", "ms", _PEERS, "<= 1.25 x"),
    Row("direct method round trip, p99", "ms", _PEERS, "<= 1.25 x"),
    servers=("emulator", "mosquitto", "hello"),
)
def round_trip(bench: Bench) -> list[Sample]:
    """Measure one caller."""
    caller = _callers(bench, 1)
    sides = {"emulator": lambda: bench.drive(caller, bench.hub)}
    if broker := bench.servers.get("mosquitto"):
        hello = bench.servers["hello"]
        sides["floor"] = lambda: bench.drive([_Floor(bench, broker, hello)], broker, hello)
    runs = bench.in_turns(**sides)
    p50, p99 = ({side: run.percentile(p) for side, run in runs.items()} for p in (0.5, 0.99))
    return [(each["emulator"], each.get("floor")) for each in (p50, p99)]


@measure(
    Row(f"direct methods, {_CALLERS} callers and devices", "/s", "one caller and device"),
    servers=("emulator",),
)
def callers(bench: Bench) -> list[Sample]:
    """Measure many callers beside one.

    The ratio depends on the machine more than on the emulator. With one caller, server and client
    take turns: a call takes the time of both, and the server sleeps and wakes twice in each call.
    Its work for a call takes twice as long then: the system has to wake a sleeping core, and the
    caches are cold. With 64 callers the server always has work, and its one core is the bound. So
    the ratio is (server + client with one caller) / (server with 64): 2.4 to 3 on a quiet virtual
    machine with two cores. It is 1.6 if other programs keep the cores awake, because one caller is
    faster then, and 1.3 if server and client share one core, because 64 callers are slower then.
    """
    found = _callers(bench, _CALLERS)
    rates = bench.in_turns(
        many=lambda: bench.drive(found, bench.hub).rate,
        one=lambda: bench.drive(found[:1], bench.hub).rate,
    )
    return [(rates["many"], rates["one"])]
