"""Direct methods: how long one takes, and how many there are in a second."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import https, mqtt
from benchmarks.bench import Bench, Effort, End, Hub, Measure, Round
from benchmarks.fleet import Fleet, new_ids, register
from benchmarks.https import Caller
from benchmarks.meter import Meter
from benchmarks.table import Figure, Reach, Sample, percentile
from benchmarks.turns import in_turns
from benchmarks.wires import Loop, Wire

CALLERS = 64

# What the method is given, and what the device answers: 100 bytes of JSON each.
_PAYLOAD = {"padding": "x" * 86}
_ANSWER = b'{"padding":"' + b"x" * 86 + b'"}'

_PEER = "mosquitto + hello"


def _invocation(hub: Hub, device_id: str) -> bytes:
    body = {"methodName": "reboot", "payload": _PAYLOAD, "responseTimeoutInSeconds": 30}
    return https.request(hub, "POST", f"/twins/{device_id}/methods", body)


# --- one caller


class _Method:
    """A service that calls a method, and the device that answers it, turn by turn."""

    def __init__(self, bench: Bench) -> None:
        hub, trust = bench.hub, bench.trust()
        (device_id,) = new_ids(1)
        register(bench, hub, [device_id])
        greeting = mqtt.greeting(device_id, hub)
        self._device = mqtt.Client(hub.mqtt, trust, greeting, mqtt.FILTERS)
        self._caller = Caller(hub.https, trust)
        self._request = _invocation(hub, device_id)

    def __call__(self) -> None:
        """Do one round trip."""
        self._caller.send(self._request)
        self._device.send(mqtt.method_answer(self._device.receive(), _ANSWER))
        self._caller.receive()

    def close(self) -> None:
        """Go."""
        self._caller.close()
        self._device.close()


class _Floor:
    """A request and its reply through a broker, then an HTTPS round trip with the same request."""

    def __init__(self, bench: Bench, broker: End, hello: End) -> None:
        trust = bench.trust()
        self._device = mqtt.Client(broker, trust, mqtt.greeting("device", None), ["requests/#"])
        self._service = mqtt.Client(broker, trust, mqtt.greeting("service", None), ["answers/#"])
        self._caller = Caller(hello, trust)
        self._request = _invocation(bench.hub, "device")
        # As long as the topics of a direct method are.
        self._question = mqtt.publish("requests/POST/reboot/?$rid=1", _ANSWER)
        self._answer = mqtt.publish("answers/res/200/?$rid=1", _ANSWER)

    def __call__(self) -> None:
        """Do one round trip of each kind."""
        self._service.send(self._question)
        self._device.receive()
        self._device.send(self._answer)
        self._service.receive()
        self._caller.call(self._request)

    def close(self) -> None:
        """Go."""
        self._device.close()
        self._service.close()
        self._caller.close()


def round_trip(bench: Bench) -> Iterator[Round]:
    """Measure one caller, with the peer in turns."""
    method = _Method(bench)
    floor = None
    if bench.mosquitto is not None and bench.hello is not None:
        floor = _Floor(bench, bench.mosquitto, bench.hello)
    for _ in range(bench.rounds):
        meter, peer_meter = Meter(bench.hub.mqtt.pid), _peer_meter(bench)
        times, peer_times = in_turns(method, floor, bench.effort, meter, peer_meter)
        work = meter.work
        peer_work = peer_meter.work if peer_times else None
        yield tuple(
            Sample(
                percentile(times, share),
                percentile(peer_times, share) if peer_times else None,
                work,
                peer_work,
            )
            for share in (0.5, 0.99)
        )
    method.close()
    if floor is not None:
        floor.close()


def _peer_meter(bench: Bench) -> Meter:
    return Meter(*(end.pid for end in (bench.mosquitto, bench.hello) if end is not None))


# --- many callers


class _Call:
    """A caller and a device, over and over again."""

    def __init__(self, hub: Hub, caller: Wire, device: Wire, device_id: str) -> None:
        self.count = 0
        """The calls that were answered."""
        self.open = False
        """Whether a call waits for its answer."""
        self.going = False
        """Whether each answer is followed by the next call."""
        self.ready = False
        """Whether it is connected."""
        self._received = b""
        self._sent_to_device = b""
        self._request = _invocation(hub, device_id)
        self._device = device
        device.on_data = self._answer
        self._caller = caller
        caller.on_data = self._take
        caller.open(self._on_open)

    def start(self) -> None:
        """Call."""
        self.going = self.open = True
        self._caller.send(self._request)

    def close(self) -> None:
        """Go."""
        self._caller.close()

    def _on_open(self) -> None:
        self.ready = True

    def _answer(self, data: bytes) -> None:
        self._sent_to_device += data
        if mqtt.whole(self._sent_to_device):  # there is never more than one
            self._device.send(mqtt.method_answer(self._sent_to_device, _ANSWER))
            self._sent_to_device = b""

    def _take(self, data: bytes) -> None:
        self._received += data
        if not https.whole(self._received):
            return
        https.check(self._received)
        self._received = b""
        self.count += 1
        if self.going:
            self._caller.send(self._request)
        else:
            self.open = False


def rate(bench: Bench) -> Iterator[Round]:
    """Measure how many calls are answered in a second: with one caller, and with many."""
    loop, hub, trust = Loop(), bench.hub, bench.trust()
    ids = new_ids(CALLERS)
    register(bench, hub, ids)
    fleet = Fleet(loop, hub.mqtt, trust, hub)
    fleet.connect(fleet.greetings(ids))
    calls = [
        _Call(hub, Wire(loop, hub.https, trust), *device)
        for device in zip(fleet.wires, fleet.ids, strict=True)
    ]
    loop.run(lambda: all(call.ready for call in calls))
    for _ in range(bench.rounds):
        one, many = Meter(hub.mqtt.pid), Meter(hub.mqtt.pid)
        slow = _calls_a_second(loop, calls[:1], bench.effort, one)
        fast = _calls_a_second(loop, calls, bench.effort, many)
        yield (Sample(fast, slow, many.work, one.work),)
    for call in calls:
        call.close()
    fleet.close()
    loop.close()


def _calls_a_second(loop: Loop, calls: list[_Call], effort: Effort, meter: Meter) -> float:
    for call in calls:
        call.start()
    loop.run_for(effort.seconds / 5)
    before = sum(call.count for call in calls)
    with meter:
        loop.run_for(effort.seconds)
        after = sum(call.count for call in calls)
    for call in calls:
        call.going = False
    loop.run(lambda: not any(call.open for call in calls))
    return (after - before) / meter.seconds


MEASURES = (
    Measure(
        (
            Figure("direct method round trip, p50", "ms", _PEER, Reach(1.25)),
            Figure("direct method round trip, p99", "ms", _PEER, Reach(1.25)),
        ),
        round_trip,
        mosquitto=True,
        hello=True,
    ),
    Measure(
        (Figure(f"direct methods, {CALLERS} callers and devices", "/s", "one caller and device"),),
        rate,
        devices=2 * CALLERS,
    ),
)
