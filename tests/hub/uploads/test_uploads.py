"""Uploads in the hub: their start, their end, how many are active, and what outlives what."""

import asyncio
import base64
import re
from datetime import timedelta
from typing import Any

import pytest

from emulator.hub.core import errors
from emulator.hub.core.store import Store
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.uploads.notifications import FileNotificationQueued
from emulator.hub.uploads.storage import StoredBlob
from emulator.hub.uploads.upload import Upload, UploadEnded, UploadStarted
from tests.clock import START, ManualClock
from tests.hub.fakes import ANY, DEVICE, CountingStore, make_hub, put, record_changes, stored
from tests.hub.uploads.shelf import Shelf

HOUR = 3600
GUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
UNKNOWN = base64.b64encode(
    b"202601311446_00000000-0000-0000-0000-000000000000_a.txt_ver2.0"
).decode()


def admission(hub: IotHub, key: IdentityKey = DEVICE) -> Admission:
    """Return what the gate returns for a device."""
    return Admission(key, 0, stored(hub.store, Identity, key).generation_id, "{}")


def start(hub: IotHub, name: object = "a.txt", key: IdentityKey = DEVICE) -> str:
    """Start an upload; return its correlation id."""
    answer = hub.uploads.start(admission(hub, key), {"blobName": name})
    correlation_id: str = answer["correlationId"]
    return correlation_id


async def end(
    hub: IotHub, correlation_id: str, key: IdentityKey = DEVICE, *, success: object = True
) -> None:
    body = {"correlationId": correlation_id, "isSuccess": success}
    await hub.uploads.end(admission(hub, key), body)


def notified(hub: IotHub) -> list[str]:
    """Take all notifications; return the names of their blobs."""
    names = []
    while item := hub.file_notifications.receive():
        names.append(item.blob_name)
        hub.file_notifications.complete(item.lock_token)
    return names


def fill(hub: IotHub) -> list[str]:
    return [start(hub, f"{number}") for number in range(10)]


# --- the start


def test_a_device_gets_a_place_for_one_blob(hub: IotHub, shelf: Shelf) -> None:
    answer = hub.uploads.start(admission(hub), {"blobName": "logs/a b.txt"})
    assert list(answer) == ["correlationId", "hostName", "containerName", "blobName", "sasToken"]
    assert answer["hostName"] == "localhost:8444"
    assert answer["containerName"] == "uploads"
    assert answer["blobName"] == "d/logs/a b.txt"
    assert answer["sasToken"] == "?sv=1&sig=x"
    assert shelf.granted == [("d/logs/a b.txt", START, START + timedelta(hours=1))]


def test_a_correlation_id_is_the_base64_of_a_readable_text(hub: IotHub) -> None:
    text = base64.b64decode(start(hub, "é_?.txt")).decode()
    assert re.fullmatch(rf"202601311446_{GUID}_é_\?\.txt_ver2\.0", text)
    assert start(hub) != start(hub)


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (None, errors.DeserializationError, "BadRequest"),
        ([], errors.DeserializationError, "BadRequest"),
        ({}, errors.ArgumentNull, "blobName is missing or empty. Use the name of the file"),
        ({"blobName": ""}, errors.ArgumentNull, "blobName is missing or empty"),
        ({"blobName": 1}, errors.ArgumentInvalid, "blobName is not a string"),
        ({"blobName": ["a"]}, errors.ArgumentInvalid, "blobName is not a string"),
        ({"blobName": "a\n"}, errors.ArgumentInvalid, "blobName has a control character"),
        ({"blobName": "a\x85"}, errors.ArgumentInvalid, "blobName has a control character"),
        ({"blobName": "../a"}, errors.ArgumentInvalid, "blobName has a segment . or .."),
        ({"blobName": "a/./b"}, errors.ArgumentInvalid, "blobName has a segment . or .."),
        (
            {"blobName": "x" * 1023},
            errors.ArgumentInvalid,
            "blobName is too long: with the device id and a slash it has 1025 characters. 1024 are",
        ),
        (
            {"blobName": "/".join("x" * 254)},
            errors.ArgumentInvalid,
            "blobName has too many segments: with the device id 255. 254 are allowed",
        ),
    ],
)
def test_a_wrong_start_is_refused(
    hub: IotHub, store: CountingStore, body: object, error: type[Exception], text: str
) -> None:
    before = store.commits
    with pytest.raises(error) as raised:
        hub.uploads.start(admission(hub), body)
    assert isinstance(raised.value, errors.HubError)
    assert raised.value.text.startswith(text)
    assert store.commits == before


@pytest.mark.parametrize("name", ["x" * 1022, "/".join("x" * 253), "/a//b.", "a\\b?#%&", "日本"])
def test_these_names_are_valid(hub: IotHub, shelf: Shelf, name: str) -> None:
    start(hub, name)
    assert shelf.granted[0][0] == f"d/{name}"


def test_member_names_count_in_any_letter_case(hub: IotHub) -> None:
    answer = hub.uploads.start(admission(hub), {"BlobName": "a", "other": 1})
    assert answer["blobName"] == "d/a"


def test_a_storage_that_refuses_a_blob_starts_nothing(
    hub: IotHub, shelf: Shelf, store: CountingStore
) -> None:
    shelf.error = errors.InvalidStorageEndpointOrBlob("no")
    before = store.commits
    with pytest.raises(errors.InvalidStorageEndpointOrBlob):
        start(hub)
    assert store.commits == before


async def test_without_a_storage_there_are_no_uploads(store: Store) -> None:
    hub = make_hub(store)
    put(hub, DEVICE)
    with pytest.raises(errors.DefaultStorageEndpointNotConfigured):
        start(hub)
    with pytest.raises(errors.DefaultStorageEndpointNotConfigured):
        await end(hub, UNKNOWN)


# --- how many are active


def test_a_device_can_have_ten_active_uploads(hub: IotHub) -> None:
    fill(hub)
    with pytest.raises(errors.DeviceMaximumActiveFileUploadLimitExceeded) as raised:
        start(hub)
    assert raised.value.text == "Number of active file upload requests cannot exceed 10"
    other = IdentityKey("e")
    put(hub, other)
    start(hub, key=other)


@pytest.mark.parametrize("success", [True, False])
async def test_a_report_makes_room_for_another_upload(
    hub: IotHub, shelf: Shelf, success: bool
) -> None:
    shelf.put("d/0")
    await end(hub, fill(hub)[0], success=success)
    start(hub)
    with pytest.raises(errors.DeviceMaximumActiveFileUploadLimitExceeded):
        start(hub)


async def test_an_upload_that_is_not_reported_ends_after_an_hour(
    hub: IotHub, clock: ManualClock
) -> None:
    ids = fill(hub)
    clock.advance(HOUR - 1)
    with pytest.raises(errors.DeviceMaximumActiveFileUploadLimitExceeded):
        start(hub)
    clock.advance(1)
    with pytest.raises(errors.ExpiredFileUploadCorrelationId):
        await end(hub, ids[0])
    fill(hub)
    with pytest.raises(errors.DeviceMaximumActiveFileUploadLimitExceeded):
        start(hub)
    assert len(hub.store.scan(Upload)) == 10
    with pytest.raises(errors.ExpiredFileUploadCorrelationId):  # though its record is gone
        await end(hub, ids[0])


# --- the end


async def test_services_are_notified_of_a_success(hub: IotHub, shelf: Shelf) -> None:
    changes = record_changes(hub.feed)
    correlation_id = start(hub)
    shelf.put("d/a.txt", 1234)
    body = {"isSuccess": True, "statusCode": 201, "statusDescription": "Created"}
    await hub.uploads.end(admission(hub), body, correlation_id)
    started, ended, queued = changes
    assert isinstance(started, UploadStarted)
    assert isinstance(ended, UploadEnded)
    assert ended.upload == started.upload
    assert (ended.report.status_code, ended.report.status_description) == (201, "Created")
    assert isinstance(queued, FileNotificationQueued)
    item = hub.file_notifications.receive()
    assert item is not None
    assert item.document() == {
        "deviceId": "d",
        "blobUri": "https://localhost:8444/uploads/d/a.txt",
        "blobName": "d/a.txt",
        "lastUpdatedTime": "2026-01-31T14:46:09+00:00",
        "blobSizeInBytes": 1234,
        "enqueuedTimeUtc": "2026-01-31T14:46:08Z",
    }


async def test_no_service_is_notified_of_a_failure(hub: IotHub, shelf: Shelf) -> None:
    shelf.put("d/a.txt")
    changes = record_changes(hub.feed, UploadEnded)
    await end(hub, start(hub), success=False)
    assert [each.report.is_success for each in changes] == [False]
    assert notified(hub) == []


async def test_a_success_without_the_blob_leaves_the_upload_active(
    hub: IotHub, shelf: Shelf, store: CountingStore
) -> None:
    correlation_id = start(hub)
    before = store.commits
    with pytest.raises(
        errors.InvalidStorageEndpointOrBlob, match=r"d/a\.txt is not in the storage"
    ):
        await end(hub, correlation_id)
    assert (store.commits, notified(hub)) == (before, [])
    shelf.put("d/a.txt")
    await end(hub, correlation_id)
    assert notified(hub) == ["d/a.txt"]


async def test_a_storage_that_does_not_answer_leaves_the_upload_active(
    hub: IotHub, shelf: Shelf
) -> None:
    correlation_id = start(hub)
    shelf.error = errors.ServiceUnavailable("The storage does not answer.")
    with pytest.raises(errors.ServiceUnavailable):
        await end(hub, correlation_id)
    shelf.error = None
    shelf.put("d/a.txt")
    await end(hub, correlation_id)
    assert notified(hub) == ["d/a.txt"]


async def test_an_upload_is_reported_once(hub: IotHub, shelf: Shelf) -> None:
    shelf.put("d/a.txt")
    correlation_id = start(hub)
    await end(hub, correlation_id)
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await end(hub, correlation_id)
    assert notified(hub) == ["d/a.txt"]


async def test_an_unknown_correlation_id_is_refused(hub: IotHub) -> None:
    start(hub)
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await end(hub, UNKNOWN)


async def test_a_correlation_id_of_another_device_is_refused(hub: IotHub, shelf: Shelf) -> None:
    other = IdentityKey("e")
    put(hub, other)
    shelf.put("d/a.txt")
    correlation_id = start(hub)
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await end(hub, correlation_id, other)
    await end(hub, correlation_id)


@pytest.mark.parametrize(
    "text",
    [
        "/w==",  # no UTF-8
        base64.b64encode(b"text").decode(),
        UNKNOWN[:-4],
        base64.b64encode(b"202613311446_00000000-0000-0000-0000-000000000000_a_ver2.0").decode(),
    ],
)
async def test_another_text_in_base64_is_no_correlation_id(hub: IotHub, text: str) -> None:
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await end(hub, text)


@pytest.mark.parametrize("text", ["invalid-correlation-id", "%", "a"])  # C#'s tests send the first
async def test_a_correlation_id_that_is_not_base64_is_a_format_error(
    hub: IotHub, text: str
) -> None:
    with pytest.raises(errors.IotHubFormatError):
        await end(hub, text)


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ([], errors.DeserializationError, "BadRequest"),
        ({"isSuccess": True}, errors.ArgumentNull, "correlationId is missing. Use that of"),
        ({"correlationId": "", "isSuccess": True}, errors.ArgumentNull, "correlationId is missing"),
        ({"correlationId": 1}, errors.ArgumentInvalid, "correlationId is not a string"),
        ({"correlationId": "x"}, errors.InvalidFileUploadCompletionStatus, "isSuccess is missing."),
        (
            {"correlationId": "x", "isSuccess": "true"},
            errors.ArgumentInvalid,
            "isSuccess is not a boolean",
        ),
        (
            {"correlationId": "x", "isSuccess": True, "statusCode": "200"},
            errors.ArgumentInvalid,
            "statusCode is not an integer",
        ),
        (
            {"correlationId": "x", "isSuccess": True, "statusCode": True},
            errors.ArgumentInvalid,
            "statusCode is not an integer",
        ),
        (
            {"correlationId": "x", "isSuccess": True, "statusDescription": {}},
            errors.ArgumentInvalid,
            "statusDescription is not a string",
        ),
    ],
)
async def test_a_wrong_report_is_refused(
    hub: IotHub, body: object, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        await hub.uploads.end(admission(hub), body)
    assert isinstance(raised.value, errors.HubError)
    assert raised.value.text.startswith(text)


@pytest.mark.parametrize("status", [0, -1, 10**12, None])
async def test_a_status_is_any_number(hub: IotHub, status: int | None) -> None:
    body = {"isSuccess": False, "statusCode": status, "statusDescription": None}
    await hub.uploads.end(admission(hub), body, start(hub))


# --- while the storage is asked


class SlowShelf(Shelf):
    """A storage whose answers wait for a test."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def find(self, blob_name: str) -> StoredBlob | None:
        self.asked.set()
        await self.answers.wait()
        return await super().find(blob_name)


async def reporting(hub: IotHub, shelf: SlowShelf) -> tuple[str, "asyncio.Task[Any]"]:
    shelf.put("d/a.txt")
    correlation_id = start(hub)
    task = asyncio.create_task(end(hub, correlation_id))
    await asyncio.wait_for(shelf.asked.wait(), 10)
    return correlation_id, task


@pytest.fixture
def slow() -> SlowShelf:
    return SlowShelf()


@pytest.fixture
def slow_hub(store: CountingStore, clock: ManualClock, slow: SlowShelf) -> IotHub:
    hub = make_hub(store, clock, upload_storage=slow)
    put(hub, DEVICE)
    return hub


async def test_two_reports_at_once_notify_once(slow_hub: IotHub, slow: SlowShelf) -> None:
    correlation_id, first = await reporting(slow_hub, slow)
    second = asyncio.create_task(end(slow_hub, correlation_id))
    await asyncio.sleep(0)
    slow.answers.set()
    await asyncio.wait_for(first, 10)
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await asyncio.wait_for(second, 10)
    assert notified(slow_hub) == ["d/a.txt"]


async def test_a_device_that_is_deleted_meanwhile_notifies_no_service(
    slow_hub: IotHub, slow: SlowShelf
) -> None:
    _, task = await reporting(slow_hub, slow)
    slow_hub.identities.remove(DEVICE, ANY)
    slow.answers.set()
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await asyncio.wait_for(task, 10)
    assert notified(slow_hub) == []


# --- devices, runs, transactions


async def test_a_device_that_is_created_again_has_no_uploads(
    hub: IotHub, clock: ManualClock
) -> None:
    correlation_id = fill(hub)[0]
    hub.identities.remove(DEVICE, ANY)
    clock.advance(1)
    put(hub, DEVICE)
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await end(hub, correlation_id)
    fill(hub)


async def test_a_new_generation_does_not_inherit_what_a_kill_left(
    hub: IotHub, store: CountingStore, clock: ManualClock, shelf: Shelf
) -> None:
    correlation_id = fill(hub)[0]
    store.commit(delete=[(Identity, DEVICE)])  # and the process was killed
    clock.advance(1)
    again = make_hub(store, clock, upload_storage=shelf)
    put(again, DEVICE)
    with pytest.raises(errors.InvalidFileUploadCorrelationId):
        await end(again, correlation_id)
    fill(again)


async def test_a_start_of_the_hub_deletes_what_a_kill_left(
    hub: IotHub, store: CountingStore, clock: ManualClock, shelf: Shelf
) -> None:
    fill(hub)
    store.commit(delete=[(Identity, DEVICE)])
    again = make_hub(store, clock, upload_storage=shelf)
    before = store.commits
    again.resume()
    assert store.commits == before + 1
    again.resume()
    assert store.commits == before + 1
    await again.stop()


async def test_a_module_that_is_deleted_ends_no_upload(hub: IotHub) -> None:
    module = IdentityKey("d", "m")
    put(hub, module)
    correlation_id = start(hub)
    hub.identities.remove(module, ANY)
    await end(hub, correlation_id, success=False)


async def test_uploads_outlive_a_restart(
    hub: IotHub, store: CountingStore, clock: ManualClock, shelf: Shelf
) -> None:
    shelf.put("d/0")
    ids = fill(hub)
    await end(hub, ids[0])
    again = make_hub(store, clock, upload_storage=shelf)
    start(again)
    with pytest.raises(errors.DeviceMaximumActiveFileUploadLimitExceeded):
        start(again)
    await end(again, ids[1], success=False)
    assert notified(again) == ["d/0"]


async def test_each_step_is_one_commit(hub: IotHub, store: CountingStore, shelf: Shelf) -> None:
    shelf.put("d/a.txt")
    before = store.commits
    correlation_id = start(hub)
    assert store.commits == before + 1
    await end(hub, correlation_id)
    assert store.commits == before + 2
