"""Readers that share the partitions by checkpoints in a blob container, which Azurite has."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventHubConsumerClient
from azure.eventhub.aio import EventHubConsumerClient as AioConsumerClient
from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore
from azure.eventhub.extensions.checkpointstoreblobaio import (
    BlobCheckpointStore as AioBlobCheckpointStore,
)
from azure.storage.blob import ContainerClient

from emulator import Emulator
from tests.npm import install
from tests.processes import Console
from tests.support import PATIENCE, Device, Service, send_events, wait_until

# The account of every Azurite (Azurite's README).
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def azurite() -> Iterator[str]:
    """The connection string of a storage emulator."""
    program = install(Path(__file__).parent / "package.json") / "azurite/dist/src/blob/main.js"
    options = ("--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry")
    with Console(program, *options, "--skipApiVersionCheck", program="node") as console:
        line = console.wait_for("Azurite Blob service successfully listens on .*")
        url = f"{line.rpartition(' ')[2]}/{ACCOUNT}"
        yield f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url};"


@pytest.fixture
def container(azurite: str) -> str:
    """The name of a new container."""
    name = f"checkpoints-{uuid.uuid4().hex}"
    with ContainerClient.from_connection_string(azurite, name) as client:
        client.create_container()
    return name


@pytest.fixture
def devices(emulator: Emulator, janitor: Service) -> Iterator[list[Device]]:
    """A device for each partition."""
    free = {each.id for each in emulator.hub.events.partitions}
    found = []
    while free:
        device_id = f"checkpoint-{uuid.uuid4().hex[:12]}"
        partition = emulator.hub.events.partition_of(device_id).id
        if partition in free:
            free.remove(partition)
            found.append(Device.of(emulator.register_device(device_id)))
    yield found
    for device in found:
        janitor.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})


class Consumer:
    """A program that reads all partitions, and writes a checkpoint behind each event.

    Args:
        options: of the client.
        storage: the connection string and the container of the checkpoints.
        starts: where the events of the test begin in each partition.
    """

    def __init__(
        self, options: dict[str, Any], storage: tuple[str, str], starts: dict[str, int]
    ) -> None:
        self.received: list[str] = []
        self.partitions: set[str] = set()
        self.errors: list[Exception] = []
        self._options = options | {"consumer_group": "$Default", "load_balancing_interval": 1}
        self._storage = storage
        self._starts = starts
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the program, and wait until it has ended."""
        self._end()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        # A partition that another reader takes is an error for its former reader.
        assert all("higher epoch" in str(error) for error in self.errors), self.errors

    def _run(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class SyncConsumer(Consumer):
    def _run(self) -> None:
        self._client = EventHubConsumerClient.from_connection_string(
            checkpoint_store=BlobCheckpointStore.from_connection_string(*self._storage),
            **self._options,
        )
        self._client.receive(
            self._on_event,
            starting_position=self._starts,
            on_partition_initialize=lambda context: self.partitions.add(context.partition_id),
            on_partition_close=lambda context, _: self.partitions.discard(context.partition_id),
            on_error=lambda _, error: self.errors.append(error),
        )

    def _on_event(self, context: Any, event: Any) -> None:
        context.update_checkpoint(event)
        self.received.append(event.body_as_str())

    def _end(self) -> None:
        self._client.close()


class AioConsumer(Consumer):
    def _run(self) -> None:
        asyncio.run(self._receive())

    async def _receive(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        store = AioBlobCheckpointStore.from_connection_string(*self._storage)
        client = AioConsumerClient.from_connection_string(checkpoint_store=store, **self._options)
        async with store, client:
            reading = asyncio.create_task(
                client.receive(
                    self._on_event,
                    starting_position=self._starts,
                    on_partition_initialize=self._on_initialize,
                    on_partition_close=self._on_close,
                    on_error=self._on_error,
                )
            )
            await self._ended.wait()
            await client.close()
            await reading

    async def _on_initialize(self, context: Any) -> None:
        self.partitions.add(context.partition_id)

    async def _on_close(self, context: Any, _: Any) -> None:
        self.partitions.discard(context.partition_id)

    async def _on_error(self, _: Any, error: Exception) -> None:
        self.errors.append(error)

    async def _on_event(self, context: Any, event: Any) -> None:
        await context.update_checkpoint(event)
        self.received.append(event.body_as_str())

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)


@pytest.mark.timeout(300)  # the first run installs Azurite
@pytest.mark.parametrize("kind", [SyncConsumer, AioConsumer])
def test_readers_share_the_partitions_and_continue_at_the_checkpoints(
    emulator: Emulator, azurite: str, container: str, devices: list[Device], kind: type[Consumer]
) -> None:
    mine = {device.id for device in devices}
    starts = {each.id: each.end - 1 for each in emulator.hub.events.partitions}

    def start() -> Consumer:
        options = {"conn_str": emulator.event_hubs_connection_string}
        return kind(options, (azurite, container), starts)

    def send(number: int) -> list[str]:
        """Send a message from each device; return their bodies."""
        bodies = [f"{device.id} {number}" for device in devices]
        for device, body in zip(devices, bodies, strict=True):
            send_events(emulator, device, body)
        return bodies

    def received(*consumers: Consumer) -> list[str]:
        """Return the bodies of this test's events: other tests send too."""
        bodies = [body for consumer in consumers for body in consumer.received]
        return sorted(body for body in bodies if body.partition(" ")[0] in mine)

    first, second = start(), start()
    wait_until(
        lambda: (
            len(first.partitions) == len(second.partitions) == 2
            and first.partitions.isdisjoint(second.partitions)
        )
    )
    bodies = send(1)
    wait_until(lambda: len(received(first, second)) >= len(bodies))
    assert len(received(first)) == len(received(second)) == 2

    first.stop()
    bodies += send(2)
    wait_until(lambda: len(received(first, second)) >= len(bodies))
    assert received(first, second) == sorted(bodies)

    second.stop()
    bodies = send(3)
    third = start()
    wait_until(lambda: len(received(third)) >= len(bodies))
    third.stop()
    assert received(third) == sorted(bodies)
