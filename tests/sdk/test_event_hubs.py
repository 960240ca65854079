"""Events through azure-eventhub, which reads what devices send."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubConsumerClient, TransportType
from azure.eventhub.aio import EventHubConsumerClient as AioConsumerClient
from azure.eventhub.exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    EventHubError,
)

from emulator import Emulator
from tests.support import PATIENCE, Device

EVENTS = pytest.mark.filterwarnings("ignore::DeprecationWarning")
pytestmark = EVENTS

# An attempt that fails is not repeated.
QUICK = {"retry_total": 0}


@pytest.fixture
def position(emulator: Emulator, device: Device) -> int:
    """Where the device's events begin in its partition: behind those of earlier tests."""
    return emulator.hub.events.partition_of(device.id).end - 1


@pytest.fixture
def positions(emulator: Emulator) -> dict[str, int]:
    """Where the events of this test begin in each partition."""
    return {each.id: each.end - 1 for each in emulator.hub.events.partitions}


class Reader:
    """A client that receives in a thread, until its block ends."""

    def __init__(self, client: EventHubConsumerClient, device: Device, **options: Any) -> None:
        self.events: list[EventData] = []
        self.errors: list[Exception] = []
        self._client = client
        self._device = device.id.encode()
        self._changed = threading.Condition()
        options = {"starting_position": "-1", "on_error": self._on_error, **options}
        self._thread = threading.Thread(
            target=client.receive, args=(self._on_event,), kwargs=options, daemon=True
        )

    def _on_event(self, context: Any, event: EventData | None) -> None:
        if event is not None and self._device in event.system_properties.values():
            with self._changed:
                self.events.append(event)
                self.context = context
                self._changed.notify()

    def _on_error(self, context: Any, error: Exception) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify()

    def wait_for(self, happened: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(happened, PATIENCE), (self.events, self.errors)

    def take(self, count: int) -> list[EventData]:
        """Wait for events; there must be no more."""
        self.wait_for(lambda: len(self.events) >= count)
        found, self.events = self.events, []
        assert len(found) == count
        return found

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def bodies(events: list[EventData]) -> list[str]:
    return [event.body_as_str() for event in events]


def over_tls(emulator: Emulator) -> str:
    return emulator.event_hubs_connection_string.replace("UseDevelopmentEmulator=true;", "")


@pytest.fixture(params=["plain", "TLS", "WebSocket", "uamqp"])
def make_client(
    request: pytest.FixtureRequest, emulator: Emulator
) -> Callable[..., EventHubConsumerClient]:
    """Makes clients, by each transport."""
    if request.param == "uamqp":
        pytest.importorskip("uamqp", reason="uamqp has wheels for x86-64 only")
    return lambda **options: client_of(emulator, request.param, **options)


def client_of(
    emulator: Emulator, transport: str = "plain", *, kind: Any = EventHubConsumerClient, **more: Any
) -> Any:
    plain, tls = emulator.event_hubs_connection_string, over_tls(emulator)
    ca = {"connection_verify": str(emulator.ca_file)}
    options: dict[str, Any] = {
        "plain": {"conn_str": plain},
        "TLS": {"conn_str": tls, **ca},
        "WebSocket": {
            "conn_str": tls,
            "transport_type": TransportType.AmqpOverWebsocket,
            "custom_endpoint_address": f"sb://{emulator.https_host}",
            **ca,
        },
        "uamqp": {"conn_str": plain, "uamqp_transport": True},
    }[transport]
    return kind.from_connection_string(consumer_group="$Default", **options | QUICK | more)


def test_past_and_live_events_arrive_by_each_transport(
    make_client: Callable[..., EventHubConsumerClient],
    send: Callable[..., None],
    device: Device,
    partition: str,
    position: int,
) -> None:
    send("ä", colour="blue")
    client = make_client()
    assert partition in client.get_partition_ids()
    with Reader(client, device, partition_id=partition, starting_position=position) as reader:
        (event,) = reader.take(1)
        assert event.body_as_str() == "ä"
        assert event.properties == {b"colour": b"blue"}
        system = event.system_properties
        assert system[b"iothub-connection-device-id"] == device.id.encode()
        assert system[b"iothub-message-source"] == b"Telemetry"
        assert abs((event.enqueued_time - datetime.now(UTC)).total_seconds()) < PATIENCE
        send("live 1", "live 2")
        assert bodies(reader.take(2)) == ["live 1", "live 2"]


def test_the_hub_and_its_partitions_say_what_they_are(
    emulator: Emulator, send: Callable[..., None], partition: str
) -> None:
    send("x")
    with client_of(emulator) as client:
        about = client.get_eventhub_properties()
        assert about["eventhub_name"] == "iothub-ehub-emulator"
        assert about["partition_ids"] == ["0", "1", "2", "3"]
        properties = client.get_partition_properties(partition)
        last = emulator.hub.events.partitions[int(partition)].last
        assert last is not None
        assert properties["last_enqueued_sequence_number"] == last.sequence_number
        assert properties["last_enqueued_offset"] == last.offset
        assert properties["is_empty"] is False
        with pytest.raises(ConnectError, match="404"):
            client.get_partition_properties("99")


async def test_the_asyncio_client_reads_all_partitions(
    emulator: Emulator, send: Callable[..., None], device: Device, positions: dict[str, int]
) -> None:
    await asyncio.to_thread(send, "1", "2", "3")
    found: list[EventData] = []
    done = asyncio.Event()

    async def on_batch(context: Any, events: list[EventData]) -> None:
        found.extend(
            event for event in events if device.id.encode() in event.system_properties.values()
        )
        if len(found) == 4:
            done.set()

    # The client ends after this interval, which is 30 s by default.
    client = client_of(emulator, kind=AioConsumerClient, load_balancing_interval=1)
    async with client:
        reading = asyncio.create_task(client.receive_batch(on_batch, starting_position=positions))
        await asyncio.sleep(0)
        await asyncio.to_thread(send, "4")
        await asyncio.wait_for(done.wait(), PATIENCE)
    await asyncio.wait_for(reading, PATIENCE)
    assert bodies(found) == ["1", "2", "3", "4"]


def test_a_reader_starts_at_a_number_an_offset_or_a_time(
    emulator: Emulator, send: Callable[..., None], device: Device, partition: str
) -> None:
    send("0")
    time.sleep(0.01)
    send("1", "2")
    first = emulator.hub.events.partitions[int(partition)].end - 3
    event = emulator.hub.events.partitions[int(partition)].read(first + 1, 1)[0]
    moment = datetime.fromtimestamp(event.enqueued_ms / 1000, UTC)
    starts: list[tuple[Any, bool]] = [
        (first, False),
        (first + 1, True),
        (event.offset, True),
        (moment, True),
    ]
    for start, inclusive in starts:
        options = {"starting_position": start, "starting_position_inclusive": inclusive}
        with Reader(client_of(emulator), device, partition_id=partition, **options) as reader:
            assert bodies(reader.take(2)) == ["1", "2"], start


def test_the_newest_event_of_the_partition_is_known(
    emulator: Emulator, send: Callable[..., None], device: Device, partition: str, position: int
) -> None:
    send("1", "2")
    options = {
        "partition_id": partition,
        "starting_position": position,
        "track_last_enqueued_event_properties": True,
    }
    with Reader(client_of(emulator), device, **options) as reader:
        last = reader.take(2)[-1]
        known = reader.context.last_enqueued_event_properties
        assert known["sequence_number"] == last.sequence_number
        assert known["offset"] == last.offset


def test_a_higher_owner_level_takes_the_partition(
    emulator: Emulator, send: Callable[..., None], device: Device, partition: str, position: int
) -> None:
    options = {"partition_id": partition, "starting_position": position}
    with Reader(client_of(emulator), device, owner_level=1, **options) as old:
        send("1")
        old.take(1)
        with Reader(client_of(emulator), device, owner_level=2, **options) as new:
            new.take(1)
            old.wait_for(lambda: old.errors)
            assert isinstance(old.errors[0], ConnectionLostError)
            assert "epoch" in str(old.errors[0])


def test_an_unknown_consumer_group_is_refused(
    emulator: Emulator, device: Device, partition: str
) -> None:
    client = EventHubConsumerClient.from_connection_string(
        emulator.event_hubs_connection_string, "unknown", **QUICK
    )
    with Reader(client, device, partition_id=partition) as reader:
        reader.wait_for(lambda: reader.errors)
        assert isinstance(reader.errors[0], EventHubError)
        assert "could not be found" in str(reader.errors[0])


def test_an_unknown_entity_is_refused(emulator: Emulator, partition: str, device: Device) -> None:
    wrong = emulator.event_hubs_connection_string.replace("EntityPath=", "EntityPath=un-")

    def client() -> EventHubConsumerClient:
        return EventHubConsumerClient.from_connection_string(wrong, "$Default", **QUICK)

    with client() as asking, pytest.raises(AuthenticationError, match="It is iothub-ehub-emulator"):
        asking.get_eventhub_properties()
    with Reader(client(), device, partition_id=partition) as reader:
        reader.wait_for(lambda: reader.errors)
        assert "It is iothub-ehub-emulator" in str(reader.errors[0])


def test_a_wrong_key_is_refused(emulator: Emulator) -> None:
    text = emulator.event_hubs_connection_string
    key = text.partition("SharedAccessKey=")[2].partition(";")[0]
    wrong = text.replace(key, "A" + key[1:])
    with (
        EventHubConsumerClient.from_connection_string(wrong, "$Default", **QUICK) as client,
        pytest.raises(AuthenticationError),
    ):
        client.get_eventhub_properties()


# --- a checkpoint store


class Checkpoints:
    """A checkpoint store in memory, as users have one in a blob container."""

    def __init__(self) -> None:
        self.ownerships: dict[str, dict[str, Any]] = {}
        self.checkpoints: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def list_ownership(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(each) for each in self.ownerships.values()]

    def claim_ownership(self, claims: Any, **_: Any) -> list[dict[str, Any]]:
        claimed = []
        with self._lock:
            for claim in claims:
                old = self.ownerships.get(claim["partition_id"])
                if old is None or old["etag"] == claim.get("etag"):
                    tag = {"etag": str(time.monotonic_ns()), "last_modified_time": time.time()}
                    self.ownerships[claim["partition_id"]] = {**claim, **tag}
                    claimed.append(dict(self.ownerships[claim["partition_id"]]))
        return claimed

    def update_checkpoint(self, checkpoint: dict[str, Any], **_: Any) -> None:
        self.checkpoints[checkpoint["partition_id"]] = dict(checkpoint)

    def list_checkpoints(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [dict(each) for each in self.checkpoints.values()]


def test_a_program_continues_behind_its_checkpoint(
    emulator: Emulator, send: Callable[..., None], device: Device, positions: dict[str, int]
) -> None:
    store = Checkpoints()
    send("1", "2")

    def run(*expected: str) -> None:
        client = client_of(emulator, checkpoint_store=store, load_balancing_interval=1)
        with Reader(client, device, starting_position=positions) as reader:
            events = reader.take(len(expected))
            assert bodies(events) == list(expected)
            reader.context.update_checkpoint(events[-1])

    run("1", "2")
    send("3")
    run("3")
