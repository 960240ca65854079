"""@azure/event-hubs: plain, over TLS, and over WebSockets and TLS on the port of HTTPS."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator import Emulator
from tests.node.conftest import Node
from tests.support import Device

_numbers = itertools.count(1)

# A test sends its first events at most so long before it makes a reader.
_MARGIN_SECONDS = 20


class NodeReader:
    """A client of @azure/event-hubs."""

    def __init__(self, node: Node, connection_string: str, **options: Any) -> None:
        self._node = node
        self._name = f"reader-{next(_numbers)}"
        # The log can hold thousands of events of other tests.
        self._start = {"enqueuedOn": int((time.time() - _MARGIN_SECONDS) * 1000)}
        self.call("create", connectionString=connection_string, **options)

    def call(self, name: str, **args: Any) -> Any:
        """Call a function of reader.js."""
        return self._node.call("reader", name, reader=self._name, **args)

    def subscribe(self, **args: Any) -> None:
        """Read the events of this test, or those from a start on."""
        self.call("subscribe", **{"start": self._start, **args})

    def event_of(self, device: Device) -> dict[str, Any]:
        """Return the next event of a device."""
        while True:
            event: dict[str, Any] = self._node.wait(self._name, "event")
            if event["systemProperties"]["iothub-connection-device-id"] == device.id:
                return event

    def error(self) -> dict[str, Any]:
        """Return the next error."""
        return dict(self._node.wait(self._name, "error"))


@pytest.fixture(params=["plain", "TLS", "TLS on the port of HTTPS", "WebSocket"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_reader(node: Node, emulator: Emulator) -> Iterator[Callable[..., NodeReader]]:
    readers = []

    def make(transport: str = "plain", **options: Any) -> NodeReader:
        text = emulator.event_hubs_connection_string
        if transport != "plain":
            text = text.replace("UseDevelopmentEmulator=true;", "")
        if transport in ("TLS on the port of HTTPS", "WebSocket"):
            host = emulator.host_name
            text = text.replace(f"sb://{host};", f"sb://{host}:{emulator.https_port};")
        reader = NodeReader(node, text, transport=transport, **options)
        readers.append(reader)
        return reader

    yield make
    for reader in readers:
        reader.call("close")


def test_past_and_live_events_arrive_by_each_transport(
    make_reader: Callable[..., NodeReader],
    send: Callable[..., None],
    device: Device,
    transport: str,
) -> None:
    send('{"temperature": 21.5}', colour="blue")
    reader = make_reader(transport)
    reader.subscribe()
    event = reader.event_of(device)
    assert event["body"] == {"temperature": 21.5}  # it parses all JSON
    assert event["properties"] == {"colour": "blue"}
    assert event["systemProperties"]["iothub-message-source"] == "Telemetry"
    assert event["last"] >= event["sequenceNumber"]
    send("live")
    assert reader.event_of(device)["body"] == "live"


def test_the_hub_and_its_partitions_say_what_they_are(
    make_reader: Callable[..., NodeReader],
    send: Callable[..., None],
    emulator: Emulator,
    partition: str,
) -> None:
    send("x")
    reader = make_reader()
    assert reader.call("hub") == {
        "name": "iothub-ehub-emulator",
        "partitionIds": ["0", "1", "2", "3"],
        "isGeoDrEnabled": False,
    }
    about = reader.call("partition", partition=partition)
    last = emulator.hub.events.partitions[int(partition)].last
    assert last is not None
    assert (about["lastEnqueuedSequenceNumber"], about["lastEnqueuedOffset"]) == (
        last.sequence_number,
        last.offset,
    )
    assert about["isEmpty"] is False
    assert "Unknown partition '99'" in reader.call("partition", partition="99")["message"]


def test_a_reader_starts_at_an_offset(
    make_reader: Callable[..., NodeReader],
    send: Callable[..., None],
    emulator: Emulator,
    device: Device,
    partition: str,
) -> None:
    send("1", "2", "3")
    number = emulator.hub.events.partitions[int(partition)].end - 2
    (event,) = emulator.hub.events.partitions[int(partition)].read(number, 1)
    reader = make_reader()
    reader.subscribe(partition=partition, start={"offset": event.offset})
    assert reader.event_of(device)["body"] == 3


def test_a_higher_owner_level_takes_the_partition(
    make_reader: Callable[..., NodeReader],
    send: Callable[..., None],
    device: Device,
    partition: str,
) -> None:
    send("1")
    old, new = make_reader(), make_reader()
    old.subscribe(partition=partition, ownerLevel=1)
    old.event_of(device)
    new.subscribe(partition=partition, ownerLevel=2)
    new.event_of(device)
    assert old.error()["code"] == "ReceiverDisconnectedError"


def test_an_unknown_consumer_group_is_refused(
    make_reader: Callable[..., NodeReader], partition: str
) -> None:
    reader = make_reader(group="unknown")
    reader.subscribe(partition=partition)
    assert "could not be found" in reader.error()["message"]
