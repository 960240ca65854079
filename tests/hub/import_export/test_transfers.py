"""Import and export jobs in the hub: containers, one job at a time, cancellation, history."""

import asyncio
import uuid

import pytest

from emulator.hub.core import errors
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.import_export.records import Transfer
from tests.clock import ManualClock
from tests.hub.fakes import ANY, CountingStore, make_hub, put
from tests.hub.import_export import depot

DAY = 24 * 3600
FULL = errors.BlobContainerValidationError("The disk is full.")


async def started(hub: IotHub, box: depot.Box, body: depot.JsonObject) -> str:
    """Create a job that waits for its storage, and return its id."""
    box.open.clear()
    job_id: str = (await hub.transfers.create(body))["jobId"]
    await asyncio.wait_for(box.waited_for.wait(), 5)
    return job_id


def status(hub: IotHub, job_id: str) -> str:
    return str(hub.transfers.get(job_id)["status"])


async def test_the_document_of_a_job(hub: IotHub, clock: ManualClock) -> None:
    job = await hub.transfers.create(depot.export(outputBlobContainerUri="https://x/y?sig=secret"))
    assert str(uuid.UUID(job["jobId"])) == job["jobId"]
    assert [*job.items()] == [
        ("jobId", job["jobId"]),
        ("startTimeUtc", "2026-01-31T14:46:08Z"),
        ("type", "export"),
        ("status", "enqueued"),
        ("progress", 0),
        ("outputBlobContainerUri", ""),
        ("excludeKeysInExport", False),
        ("useSecondaryStorageAsSource", False),
    ]
    clock.advance(3)
    after = await depot.over(hub, job["jobId"])
    ended = {"endTimeUtc": "2026-01-31T14:46:11Z", "status": "completed", "progress": 100}
    assert after == {**job, **ended}
    assert hub.transfers.list() == [after]


async def test_one_job_runs_at_a_time(hub: IotHub, box: depot.Box) -> None:
    box.open.clear()
    first = asyncio.ensure_future(hub.transfers.create(depot.export()))
    await asyncio.sleep(0)  # it still checks its container
    with pytest.raises(errors.JobQuotaExceeded) as caught:
        await hub.transfers.create(depot.export())
    assert caught.value.text == (
        "Error: 403 ErrorCode: JobQuotaExceeded\r\nMessage: Job quota has been exceeded\r\n"
        "Timestamp: 01/31/2026 14:46:08\r\nTracking ID: "
    )
    job_id = (await first)["jobId"]
    await asyncio.wait_for(box.waited_for.wait(), 5)
    assert status(hub, job_id) == "running"
    with pytest.raises(errors.JobQuotaExceeded):
        await hub.transfers.create(depot.import_())
    box.open.set()
    await depot.over(hub, job_id)
    await asyncio.sleep(0)
    assert (await depot.finish(hub, depot.export()))["status"] == "completed"


READ = "Failed to read {} blob from the input container. {}"


@pytest.mark.parametrize(
    ("what", "body", "message"),
    [
        ("check", depot.export(), "The disk is full."),
        ("check", depot.import_(), "The disk is full."),
        ("read", depot.import_(), READ.format("devices", "The disk is full.")),
        ("nothing", depot.import_(inputBlobName="x"), READ.format("devices", "It is not there.")),
        (
            "nothing",
            depot.import_(includeConfigurations=True),
            READ.format("configurations", "It is not there."),
        ),
    ],
)
async def test_a_container_that_fails_is_an_error_at_once(
    hub: IotHub, box: depot.Box, what: str, body: depot.JsonObject, message: str
) -> None:
    box.put_lines(depot.line("d"))
    box.fails[what] = FULL
    with pytest.raises(errors.BlobContainerValidationError) as caught:
        await hub.transfers.create(body)
    assert f"\r\nMessage: {message}\r\n" in caught.value.text
    assert caught.value.text.startswith("Error: 400 ErrorCode: BlobContainerValidationError\r\n")
    assert hub.transfers.list() == []
    # The next job can start.
    box.fails.clear()
    assert (await depot.finish(hub, depot.import_()))["status"] == "completed"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(FULL, "The disk is full."), (RuntimeError("a defect"), "InternalServerError")],
)
@pytest.mark.parametrize("body", [depot.export(), depot.import_()], ids=lambda body: body["type"])
async def test_storage_that_fails_later_fails_the_job(
    hub: IotHub,
    box: depot.Box,
    body: depot.JsonObject,
    error: Exception,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    box.put_lines(depot.line("d"))
    box.fails["write"] = error
    job = await depot.finish(hub, body)
    assert (job["status"], job["failureReason"]) == ("failed", reason)
    assert "endTimeUtc" in job
    assert ("out", "devices.txt") not in box.blobs
    assert ("a defect" in caplog.text) is (error is not FULL)


async def test_a_hub_without_storage_refuses_every_container() -> None:
    hub = make_hub()
    with pytest.raises(errors.BlobContainerValidationError, match="without storage") as caught:
        await hub.transfers.create(depot.export(outputBlobContainerUri="https://x/?sig=secret"))
    assert "secret" not in caught.value.text


async def test_an_unknown_job_is_not_found(hub: IotHub) -> None:
    with pytest.raises(errors.JobNotFound):
        hub.transfers.get("unknown")
    with pytest.raises(errors.JobNotFound):
        await hub.transfers.cancel("unknown")


# --- the end of a job


async def test_a_cancelled_import_stops(hub: IotHub, box: depot.Box) -> None:
    box.put_lines(*(depot.line(f"d{number}") for number in range(900)))
    job_id = (await hub.transfers.create(depot.import_()))["jobId"]
    await depot.begun(hub, job_id)
    await hub.transfers.cancel(job_id)
    cancelled = hub.transfers.get(job_id)
    assert (cancelled["status"], "endTimeUtc" in cancelled) == ("cancelled", True)
    done = len(depot.device_ids(hub))
    assert 0 < done < 900
    await asyncio.sleep(0)
    assert len(depot.device_ids(hub)) == done
    assert ("out", "importErrors.log") not in box.blobs
    # A second cancellation has no effect, and the next job can start.
    await hub.transfers.cancel(job_id)
    assert hub.transfers.get(job_id) == cancelled
    assert (await depot.finish(hub, depot.import_()))["status"] == "completed"


async def test_a_job_that_is_cancelled_before_its_start_does_nothing(
    hub: IotHub, box: depot.Box
) -> None:
    box.put_lines(depot.line("d"))
    job = await hub.transfers.create(depot.import_())
    await hub.transfers.cancel(job["jobId"])
    assert status(hub, job["jobId"]) == "cancelled"
    assert depot.device_ids(hub) == []


class SlowBox(depot.Box):
    """Storage that needs some time to end a cancelled operation, or makes an error of it."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error
        self.ended = False

    async def write(self, container: str, name: str, content: bytes) -> None:
        self.waited_for.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.error is not None:
                raise self.error from None
            raise
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            self.ended = True


@pytest.mark.parametrize("end", ["cancel", "stop"])
@pytest.mark.parametrize("error", [None, FULL])
async def test_an_ended_job_has_ended_all_its_work(end: str, error: Exception | None) -> None:
    box = SlowBox(error)
    hub = make_hub(blobs=box)
    job_id = await started(hub, box, depot.export())
    await (hub.transfers.cancel(job_id) if end == "cancel" else hub.stop())
    assert box.ended
    assert status(hub, job_id) == ("cancelled" if end == "cancel" else "failed")


async def test_a_stopping_hub_ends_its_job_and_accepts_no_other(
    hub: IotHub, box: depot.Box
) -> None:
    done = await depot.finish(hub, depot.export())
    box.waited_for.clear()
    job_id = await started(hub, box, depot.export(outputBlobName="second"))
    await hub.stop()
    job = hub.transfers.get(job_id)
    assert job["status"] == "failed"
    assert job["failureReason"] == "The hub was stopped before the job was done."
    assert hub.transfers.get(done["jobId"]) == done
    assert ("out", "second") not in box.blobs
    for refused in (hub.transfers.create(depot.export()), hub.transfers.cancel(job_id)):
        with pytest.raises(errors.ServiceUnavailable):
            await refused
    await hub.stop()  # a second stop has no effect


async def test_a_job_whose_container_is_checked_while_the_hub_stops_is_not_created(
    hub: IotHub,
) -> None:
    creating = asyncio.ensure_future(hub.transfers.create(depot.export()))
    await asyncio.sleep(0)
    await hub.stop()
    with pytest.raises(errors.ServiceUnavailable):
        await creating
    assert hub.transfers.list() == []


# --- history, and changes during a job


@pytest.mark.parametrize("ask", ["list", "get", "cancel", "create"])
async def test_every_request_for_jobs_deletes_those_that_ended_30_days_ago(
    hub: IotHub, store: CountingStore, clock: ManualClock, ask: str
) -> None:
    first = await depot.finish(hub, depot.export())
    clock.advance(DAY)
    second = await depot.finish(hub, depot.export())
    clock.advance(29 * DAY - 1e-6)
    assert hub.transfers.list() == [first, second]
    clock.advance(1e-6)
    if ask == "list":
        assert hub.transfers.list() == [second]
    elif ask == "create":
        await hub.transfers.create(depot.export())
    elif ask == "cancel":
        with pytest.raises(errors.JobNotFound):
            await hub.transfers.cancel(first["jobId"])
    else:
        with pytest.raises(errors.JobNotFound):
            hub.transfers.get(first["jobId"])
    assert store.scan(Transfer)[0].key.id == second["jobId"]


async def test_devices_can_come_and_go_during_an_export(hub: IotHub, box: depot.Box) -> None:
    for number in range(200):
        put(hub, IdentityKey(f"d{number}"))
    job = await hub.transfers.create(depot.export())
    await depot.begun(hub, job["jobId"])
    hub.identities.remove(IdentityKey("d199"), ANY)
    put(hub, IdentityKey("late"))
    assert (await depot.over(hub, job["jobId"]))["status"] == "completed"
    assert [each["id"] for each in box.lines()] == [
        *sorted(f"d{number}" for number in range(199)),
        "late",
    ]
