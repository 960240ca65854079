"""Messages over AMQP: telemetry, cloud-to-device messages, and the reading of events."""

from __future__ import annotations

from azure.eventhub import EventHubConsumerClient

from benchmarks import https, mqtt
from benchmarks.amqp import Link
from benchmarks.bench import Bench, Client, Meter, measure
from benchmarks.devices import connect, register
from benchmarks.servers import HOST, Server
from benchmarks.table import Reading, Row, Sample
from emulator.amqp.message import Message
from emulator.amqp.performatives import RECEIVER, SENDER, Properties

_IDS = [f"device-{number}" for number in range(8)]
_RECEIVER = "receiver"
_COMMANDS = f"/devices/{_RECEIVER}/messages/devicebound"
_MESSAGE = Message(b"x" * 100, Properties(to=_COMMANDS)).to_bytes()

# How many messages a device has in flight: RabbitMQ has credit for 65,535.
_IN_FLIGHT = 256

_EVENTS = 10_000


class _Pipeline(Client):
    """A device that does not wait, within its credit and a bound."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link, link.on_change = link, self._take

    def _send(self) -> None:
        limit = min(self._link.limit, self._link.done + _IN_FLIGHT)
        self._link.send(_MESSAGE, limit - self._link.sent)

    def _take(self) -> None:
        self.count, self.idle = self._link.done, self._link.done == self._link.sent
        if self.going:
            self.send()


class _RoundTrip(Client):
    """A service whose message the server accepts, and a device receives."""

    def __init__(self, service: Link, device: Link) -> None:
        super().__init__()
        self._service, self._device = service, device
        service.on_change = device.on_change = self._take

    def _send(self) -> None:
        self._service.send(_MESSAGE)

    def _take(self) -> None:
        if not self.idle and self._service.done == self._device.done == self._service.sent:
            self.answered()


@measure(
    Row(f"telemetry over AMQP, {len(_IDS)} devices, pipelined", "/s", "rabbitmq"),
    Row("cloud-to-device message over AMQP, p50", "ms", "rabbitmq"),
    servers=("emulator", "rabbitmq"),
)
def both_directions(bench: Bench) -> list[Sample]:
    """Measure devices that do not wait; then a service and a device that wait for each other.

    A cloud-to-device message has arrived when the service has its outcome and the device has it.
    """
    register(bench, [_RECEIVER, *_IDS])

    def both(server: Server) -> tuple[Reading, Reading]:
        ours = server is bench.hub
        source, target = (_COMMANDS, "/messages/devicebound") if ours else ("/queue/commands",) * 2
        nodes = {e: f"/devices/{e}/messages/events" if ours else "/topic/events" for e in _IDS}
        links = [Link(bench, server, f"{e}@sas.{HOST}", nodes[e], SENDER) for e in _IDS]
        telemetry = bench.drive([*map(_Pipeline, links)], server).rate
        device = Link(bench, server, f"{_RECEIVER}@sas.{HOST}", source, RECEIVER)
        service = Link(bench, server, f"iothubowner@sas.root.{HOST}", target, SENDER)
        return telemetry, bench.drive([_RoundTrip(service, device)], server).percentile(0.5)

    found = bench.each(both)
    return [*zip(found["emulator"], found.get("rabbitmq", (None, None)), strict=True)]


@measure(
    Row("CPU time of an event of 1 KB that is read", "µs", "azure-eventhub", "<= 0.33 x"),
    servers=("emulator",),
)
def reading(bench: Bench) -> list[Sample]:
    """Measure the hub while azure-eventhub reads 10,000 events, beside azure-eventhub itself."""
    register(bench, _IDS)
    share = _EVENTS // len(_IDS) // (10 if bench.quick else 1)
    count, stored, read = share * len(_IDS), list[bytes](), list[object]()
    for wire, each in zip(connect(bench, bench.hub, [*map(mqtt.connect, _IDS)]), _IDS, strict=True):
        topic = f"devices/{each}/messages/events/".encode()
        wire.take(mqtt.whole, stored.append)
        wire.send(b"".join(mqtt.publish(topic, b"x" * 1024, 1 + n) for n in range(share)))
    bench.loop.run(lambda: len(stored) == count)
    string = (
        f"Endpoint=sb://{HOST}:{bench.hub.ports['amqp']};SharedAccessKeyName=service;"
        f"SharedAccessKey={https.KEY};UseDevelopmentEmulator=true;EntityPath=iothub-ehub-emulator"
    )
    client = EventHubConsumerClient.from_connection_string(string, "$Default")

    def take(_: object, event: object) -> None:
        read.append(event)
        if event is None or len(read) == count:
            client.close()

    with Meter(bench.hub) as meter:
        client.receive(take, max_wait_time=20, starting_position="-1")
    if None in read:
        raise ValueError(f"azure-eventhub read {len(read) - 1} of {count} events")
    used = (meter.served, meter.cpu.client * meter.seconds)
    hub, reader = (Reading(seconds / count * 1e6, meter.cpu) for seconds in used)
    return [(hub, reader)]
