"""A hub that continues with the file of an earlier run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from emulator.disk.store import DiskStore
from emulator.hub.core.errors import DeviceMessageLockLost, InvalidFileUploadCorrelationId
from emulator.hub.hub import IotHub
from emulator.hub.import_export.records import Transfer, TransferType
from emulator.hub.jobs.records import JobKey, JobStatus
from emulator.hub.links.link import Admission
from emulator.hub.messages.cloud_to_device import FeedbackQueued
from emulator.hub.messages.event import TELEMETRY, Origin
from emulator.hub.messages.event_log import EventLog
from emulator.hub.messages.message import Message
from tests.clock import ManualClock, settle
from tests.hub.fakes import DEVICE, MODULE, FakeLink, connect, make_hub, put, record_changes
from tests.hub.uploads.shelf import Shelf

_SENDER = Admission(DEVICE, 1e12, "1", '{"scope":"device"}')


class Runs:
    """The runs of a hub on one file; the clock goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()

        self.shelf = Shelf()

    @contextmanager
    def run(self, **bounds: Any) -> Iterator[IotHub]:
        """Run the hub; at the end it is not stopped, as by a kill."""
        with closing(DiskStore(self.path)) as store:
            events = EventLog(clock=self.clock, store=store, **bounds)
            yield make_hub(store, self.clock, events=events, upload_storage=self.shelf)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "hub.sqlite")


def test_identities_and_twins_are_the_same(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        put(hub, MODULE)
        hub.twins.report(DEVICE, {"a": 1.0}, None)
        before = [hub.identities.get(key) for key in (DEVICE, MODULE)]
        twins = [hub.twins.get(key) for key in (DEVICE, MODULE)]
    with runs.run() as hub:
        assert [hub.identities.get(key) for key in (DEVICE, MODULE)] == before
        assert [hub.twins.get(key) for key in (DEVICE, MODULE)] == twins
        assert repr(hub.twins.read_own(DEVICE)["reported"]["a"]) == "1.0"


def ingest(hub: IotHub, *bodies: str) -> None:
    hub.telemetry.sender(_SENDER).ingest([Message(each.encode()) for each in bodies])


def test_events_keep_their_numbers_and_their_offsets(runs: Runs) -> None:
    with runs.run() as hub:
        ingest(hub, "a", "b")
        hub.telemetry.sender(_SENDER).ingest([Message(b"\xff", {"message-id": "1"}, {"p": None})])
        before = [each.document() for each in hub.events.read()]
    runs.clock.advance(60)
    with runs.run() as hub:
        assert [each.document() for each in hub.events.read()] == before
        assert hub.events.begin == 0
        partition = hub.events.partition_of(DEVICE.device_id)
        assert partition.last is not None
        assert (partition.last.sequence_number, partition.begin, partition.end) == (2, 0, 3)
        ingest(hub, "c")
        event = hub.events.read(3)[0]
        assert (event.number, event.sequence_number) == (3, 3)
        assert event.offset == str(int(before[0]["offset"]) + 3)


def test_a_log_without_events_continues_with_its_numbers(runs: Runs) -> None:
    with runs.run(retention=60) as hub:
        ingest(hub, "a", "b")
        offset = hub.events.read()[0].offset
    runs.clock.advance(3600)
    with runs.run(retention=60) as hub:
        assert hub.events.read() == []
        ingest(hub, "c")
    with runs.run(retention=60) as hub:
        [event] = hub.events.read()
        assert (event.number, event.sequence_number) == (2, 2)
        assert event.offset == str(int(offset) + 2)


class EarlierBatch(Struct, array_like=True):
    """A batch as it is in the files of an earlier version."""

    partition: int
    sequence_number: int
    enqueued: datetime
    origin: Origin
    messages: list[Message]


def test_the_log_of_an_earlier_version_is_read(runs: Runs) -> None:
    with runs.run(partitions=1) as hub:
        origin, now = Origin(DEVICE, TELEMETRY, _SENDER), hub.clock.now()
        batches = [
            EarlierBatch(0, 0, now, origin, [Message(b"a"), Message(b"b")]),
            EarlierBatch(0, 2, now, origin, [Message(b"c")]),
        ]
        first, second = batches
        hub.store.append(1, {"number": 0, "batches": [first], "ends": [2]}, oldest=0)
        hub.store.append(2, {"number": 2, "batches": [second], "ends": [3]}, oldest=0)
    with runs.run() as hub:
        assert (hub.events.begin, hub.events.end) == (0, 3)
    with runs.run(events=2) as hub:
        ingest(hub, "d")
        found = [(each.number, each.message.body) for each in hub.events.read()]
        assert found == [(2, b"c"), (3, b"d")]


def test_the_bounds_of_the_log_hold_after_a_restart(runs: Runs) -> None:
    with runs.run(events=5) as hub:
        for number in range(200):
            ingest(hub, f"{number:04000}")
    with runs.run(events=5) as hub:
        numbers = [int(each.message.body) for each in hub.events.read()]
        assert numbers == [195, 196, 197, 198, 199]
    with runs.run(events=2) as hub:
        assert [each.number for each in hub.events.read()] == [198, 199]
    with closing(DiskStore(runs.path)) as store:
        [[rows]] = store._execute("SELECT count(*) FROM log")
        assert rows <= 90  # those of a few events more are dropped together


def test_the_number_of_partitions_is_that_of_the_first_run(runs: Runs) -> None:
    with runs.run(partitions=2) as hub:
        ingest(hub, "a")
    with runs.run(partitions=8) as hub:
        assert len(hub.events.partitions) == 2
        assert [each.message.body for each in hub.events.read()] == [b"a"]


def test_presence_is_that_of_a_lost_connection(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        connect(hub, FakeLink())
        ingest(hub, "a")
        active = hub.links.presence(DEVICE).last_activity
    runs.clock.advance(60)
    with runs.run() as hub:
        presence = hub.links.presence(DEVICE)
        assert not presence.connected
        assert (presence.state_updated, presence.last_activity) == (runs.clock.now(), active)


def test_a_message_of_a_lost_connection_is_sent_again(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        connect(hub, link := FakeLink())
        hub.cloud_to_device.send("d", Message(b"a"))
        assert len(link.delivered) == 1
    with runs.run() as hub:
        connect(hub, link := FakeLink())
        [delivery] = link.delivered
        assert (delivery.body, delivery.redelivered, delivery.delivery_count) == (b"a", True, 0)
        hub.cloud_to_device.complete("d", delivery.lock_token)
    with runs.run() as hub:
        assert hub.cloud_to_device.pending("d") == 0


def test_a_lock_over_https_holds_and_lapses(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        hub.cloud_to_device.send("d", Message(b"a"))
        hub.cloud_to_device.send("d", Message(b"b"))
        first, second = hub.cloud_to_device.receive("d"), hub.cloud_to_device.receive("d")
        assert first
        assert second
    with runs.run() as hub:
        assert hub.cloud_to_device.receive("d") is None
        hub.cloud_to_device.complete("d", first.lock_token)
        runs.clock.advance(61)
        with pytest.raises(DeviceMessageLockLost):
            hub.cloud_to_device.complete("d", second.lock_token)
        again = hub.cloud_to_device.receive("d")
        assert again
        assert (again.body, again.redelivered) == (b"b", True)


async def test_uploads_and_their_notifications_are_the_same(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        device = replace(_SENDER, generation_id=hub.identities.get(DEVICE)["generationId"])
        ids = []
        for name in "ab":
            ids.append(hub.uploads.start(device, {"blobName": name})["correlationId"])
            runs.shelf.put(f"d/{name}", 5)
        await hub.uploads.end(device, {"isSuccess": True}, ids[0])
        lent = hub.file_notifications.receive()
        assert lent
    with runs.run() as hub:
        assert hub.file_notifications.receive() is None
        hub.file_notifications.complete(lent.lock_token)
        with pytest.raises(InvalidFileUploadCorrelationId):
            await hub.uploads.end(device, {"isSuccess": True}, ids[0])
        await hub.uploads.end(device, {"isSuccess": True}, ids[1])
    with runs.run() as hub:
        notification = hub.file_notifications.receive()
        assert notification
        assert (notification.blob_name, notification.blob.size) == ("d/b", 5)


async def test_a_lapsed_lock_goes_to_the_connection_that_is_there_by_then(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        hub.cloud_to_device.send("d", Message(b"a"))
        assert hub.cloud_to_device.receive("d")
    with runs.run() as hub:
        hub.resume()
        connect(hub, link := FakeLink())
        assert link.delivered == []
        runs.clock.advance(61)
        assert [each.body for each in link.delivered] == [b"a"]
        await hub.stop()


def test_what_became_due_while_the_hub_was_stopped_is_done_at_its_start(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        for message_id in ("lent", "expired"):
            message = Message(b"", {"message-id": message_id}, {"iothub-ack": "full"})
            hub.cloud_to_device.send("d", message)
        delivery = hub.cloud_to_device.receive("d")
        assert delivery
        hub.cloud_to_device.complete("d", delivery.lock_token)
        assert hub.cloud_to_device.receive_feedback()
        hub.cloud_to_device.stop()
    runs.clock.advance(3590)
    with runs.run() as hub:
        hub.resume()
        changes = record_changes(hub.feed, FeedbackQueued)
        runs.clock.advance(0)
        assert len(changes) == 1  # its lock has lapsed
        runs.clock.advance(10)
        assert len(changes) == 2  # a message has expired


# --- jobs


def twin_job(job_id: str, **members: Any) -> dict[str, Any]:
    patch = {"etag": "*", "tags": {"job": job_id}}
    return {
        "jobId": job_id,
        "type": "scheduleUpdateTwin",
        "queryCondition": "is_defined(deviceId)",
        "updateTwin": patch,
        **members,
    }


async def test_a_job_that_waits_for_its_time_still_does(runs: Runs) -> None:
    with runs.run() as hub:
        put(hub, DEVICE)
        start = (runs.clock.now() + timedelta(hours=1)).isoformat()
        hub.jobs.create("j", twin_job("j", startTime=start))
        hub.jobs.create("cancelled", twin_job("cancelled", startTime=start))
        await hub.jobs.stop()
    with runs.run() as hub:
        hub.resume()
        assert hub.jobs.cancel("cancelled")["status"] == "cancelled"
        assert hub.jobs.get("j")["status"] == "scheduled"
        await runs.clock.pass_time(3601)
        await settle()
        assert hub.jobs.get("j")["status"] == "completed"
        assert hub.twins.get(DEVICE)["tags"] == {"job": "j"}
        await hub.stop()


async def test_a_direct_method_on_its_way_has_failed_and_the_others_continue(runs: Runs) -> None:
    method = {
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": {"methodName": "m", "responseTimeoutInSeconds": 300},
    }
    with runs.run() as hub:
        put(hub, DEVICE)
        connect(hub, link := FakeLink())
        hub.jobs.create("j", {**twin_job("j"), **method})
        await settle()
        assert len(link.invoked) == 1
        await hub.jobs.stop()
    with runs.run() as hub:
        hub.resume()
        await settle()
        job = hub.jobs.get("j")
        assert job["status"] == "completed"
        assert job["deviceJobStatistics"]["failedCount"] == 1
        await hub.stop()


def test_an_import_that_was_running_has_failed(runs: Runs) -> None:
    with closing(DiskStore(runs.path)) as store:
        running = Transfer(
            JobKey("t"), TransferType.IMPORT, False, runs.clock.now(), status=JobStatus.RUNNING
        )
        store.commit(put=(running,))
    with runs.run() as hub:
        hub.transfers.fail_unfinished()
        found = hub.transfers.get("t")
        assert found["status"] == "failed"
        assert found["failureReason"] == "The hub was stopped before the job was done."
