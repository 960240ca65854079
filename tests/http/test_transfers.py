"""Import and export jobs over REST, on folders and on a blob service of the test."""

import json
import re
import shutil
import stat
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http.support import ANY, MOMENT, PATIENCE, check_error, put_device, read
from tests.messages import put_module
from tests.support import Service, second_hub, wait_until

INVALID_CONTAINER = "BlobContainerValidationError"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the emulator finds containers."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def service(emulator: Emulator, root: Path) -> Iterator[Service]:
    """A service of a hub with storage."""
    with second_hub(emulator, storage=root) as hub, Service(hub) as client:
        yield client


@pytest.fixture
def box(service: Service, root: Path) -> Iterator[Path]:
    """A folder that is a container, of this test alone; the registry is empty."""
    for device_id in ids(service):
        service.request("DELETE", f"/devices/{device_id}", headers=ANY)
    folder = root / f"box-{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def export(box: Path, **members: object) -> dict[str, object]:
    return {"type": "export", "outputBlobContainerUri": f"file:///{box.name}", **members}


def import_(box: Path, **members: object) -> dict[str, object]:
    uri = f"file:///{box.name}"
    containers = {"inputBlobContainerUri": uri, "outputBlobContainerUri": uri}
    return {"type": "import", **containers, **members}


def post(service: Service, body: object) -> requests.Response:
    return service.request("POST", "/jobs/create", json=body)


def create(service: Service, body: object) -> Any:
    response = post(service, body)
    assert response.status_code == 200, response.text
    return response.json()


def get(service: Service, job_id: str) -> Any:
    return read(service, f"/jobs/{job_id}")


def over(service: Service, job_id: str) -> Any:
    """Wait for the end of a job; return it."""
    wait_until(lambda: get(service, job_id)["status"] not in ("enqueued", "running"))
    return get(service, job_id)


def finish(service: Service, body: object) -> Any:
    return over(service, create(service, body)["jobId"])


def write_lines(file: Path, *items: object) -> None:
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def ids(service: Service) -> list[str]:
    return [device["deviceId"] for device in read(service, "/devices")]


# --- exports and imports


def test_an_export_is_a_job_with_the_members_of_a_real_hub(service: Service, box: Path) -> None:
    put_device(service, "d")
    job = create(service, export(box))
    assert list(job) == [
        *("jobId", "startTimeUtc", "type", "status", "progress", "outputBlobContainerUri"),
        *("excludeKeysInExport", "useSecondaryStorageAsSource"),
    ]
    assert str(uuid.UUID(job["jobId"])) == job["jobId"]
    assert MOMENT.fullmatch(job["startTimeUtc"])
    assert (job["type"], job["status"], job["progress"]) == ("export", "enqueued", 0)
    assert (job["outputBlobContainerUri"], job["useSecondaryStorageAsSource"]) == ("", False)

    after = over(service, job["jobId"])
    assert list(after) == [*list(job)[:2], "endTimeUtc", *list(job)[2:]]
    assert after["endTimeUtc"] >= job["startTimeUtc"]
    assert (after["status"], after["progress"]) == ("completed", 100)
    assert read(service, "/jobs")[-1] == after

    (line,) = read_lines(box / "devices.txt")
    identity = read(service, "/devices/d")
    assert (line["id"], line["eTag"], line["status"]) == ("d", identity["etag"], "enabled")
    assert line["authentication"] == identity["authentication"]
    if sys.platform != "win32":
        assert stat.S_IMODE((box / "devices.txt").stat().st_mode) == 0o600

    # To cancel a job that is over is not an error, and changes nothing.
    response = service.request("DELETE", f"/jobs/{job['jobId']}")
    assert (response.status_code, response.content) == (204, b"")
    assert get(service, job["jobId"]) == after


def test_an_import_restores_what_an_export_has_written(service: Service, box: Path) -> None:
    put_device(service, "d", statusReason="new")
    put_module(service, "d", "m")
    patch = {"tags": {"floor": 1}, "properties": {"desired": {"a": {"b": 1.5}}}}
    for path in ("/twins/d", "/twins/d/modules/m"):
        assert service.request("PATCH", path, json=patch).ok
    configuration = {"id": "c", "content": {"deviceContent": {"properties.desired.c": 1}}}
    assert service.request("PUT", "/configurations/c", json=configuration).status_code == 200

    paths = ("/devices/d", "/devices/d/modules/m", "/twins/d", "/twins/d/modules/m")
    before = [read(service, path) for path in paths]
    assert finish(service, export(box, includeConfigurations=True))["status"] == "completed"
    assert len(read_lines(box / "devices.txt")) == 2
    (line,) = read_lines(box / "configurations.txt")
    content = {"DeviceContent": {"properties.desired.c": 1}}
    assert (line["Id"], line["Content"]) == ("c", content)

    service.request("DELETE", "/devices/d", headers=ANY)
    service.request("DELETE", "/configurations/c")
    assert finish(service, import_(box, includeConfigurations=True))["status"] == "completed"
    assert (box / "importErrors.log").read_bytes() == b""
    for old, new in zip(before, [read(service, path) for path in paths], strict=True):
        for name in ("authentication", "statusReason", "tags"):
            assert new.get(name) == old.get(name)
        if "properties" in old:
            assert new["properties"]["desired"]["a"] == {"b": 1.5}
    assert read(service, "/configurations/c")["content"] == configuration["content"]
    service.request("DELETE", "/configurations/c")


def test_a_request_can_name_the_blobs_and_leave_out_the_keys(service: Service, box: Path) -> None:
    keys = put_device(service, "d")["authentication"]["symmetricKey"]
    names = {"outputBlobName": "mine.txt", "configurationsBlobName": "c.txt"}
    job = finish(
        service, export(box, includeConfigurations=True, excludeKeysInExport=True, **names)
    )
    assert job["excludeKeysInExport"] is True
    assert sorted(file.name for file in box.iterdir()) == ["c.txt", "mine.txt"]
    text = (box / "mine.txt").read_text()
    assert not any(key in text for key in keys.values())
    write_lines(box / "theirs.txt", {"id": "e", "status": "enabled"}, {"id": "without a status"})
    job = finish(service, import_(box, inputBlobName="theirs.txt"))
    assert (job["type"], job["status"], job["progress"]) == ("import", "completed", 100)
    (error,) = read_lines(box / "importErrors.log")
    assert error["errorCode"] == 400012
    assert ids(service) == ["d", "e"]


def test_many_devices_are_imported_and_deleted(service: Service, box: Path) -> None:
    items = [{"id": f"d{number}", "status": "enabled"} for number in range(2_000)]
    write_lines(box / "devices.txt", *items)
    assert finish(service, import_(box))["progress"] == 100
    assert read(service, "/statistics/devices")["totalDeviceCount"] == 2_000
    write_lines(box / "devices.txt", *({**each, "importMode": "delete"} for each in items))
    finish(service, import_(box))
    assert (box / "importErrors.log").read_bytes() == b""
    assert ids(service) == []


# --- failures


def check_block(response: requests.Response, status: int, name: str) -> str:
    """Check an error of these jobs, whose text has several lines; return its message."""
    text = check_error(response, status, name)
    first, message, timestamp, tracking = text.split("\r\n")
    assert first == f"Error: {status} ErrorCode: {name}"
    assert re.fullmatch(r"Timestamp: \d\d/\d\d/\d{4} \d\d:\d\d:\d\d", timestamp)
    assert tracking == "Tracking ID: "
    assert ";" not in text  # the SDK for Node would cut it off there
    return message.removeprefix("Message: ")


def test_an_invalid_container_is_an_error_at_once(service: Service, box: Path) -> None:
    before = read(service, "/jobs")
    for container, reason in (
        ("file:///none", "There is no folder none in the folder of --storage. Make it."),
        ("file:///..", "can't be the name of a folder"),
        ("file:///etc/passwd", "Use file:///NAME for the folder NAME"),
        ("https://example.com/box?sig=secret", "does not call example.com:443"),
        ("http://127.0.0.1:80/box?sig=secret", "--storage-host 127.0.0.1:80."),
        ("nonsense", "neither file:///NAME nor a URL"),
    ):
        response = post(service, export(box, outputBlobContainerUri=container))
        message = check_block(response, 400, INVALID_CONTAINER)
        assert message.startswith("Unauthorized to write to output blob container. ")
        assert reason in message
        assert "secret" not in message
    message = check_block(post(service, import_(box)), 400, INVALID_CONTAINER)
    assert message.startswith("Failed to read devices blob from the input container. ")
    assert read(service, "/jobs") == before


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"outputBlobContainerUri": None}, "ArgumentNull"),
        ({"type": "firmwareUpdate"}, "ArgumentInvalid"),
        ({"storageAuthenticationType": "identityBased"}, "ManagedIdentityNotEnabled"),
    ],
)
def test_an_invalid_request_is_refused(
    service: Service, box: Path, members: dict[str, Any], name: str
) -> None:
    check_error(post(service, export(box, **members)), 400, name)


def test_storage_that_fails_later_fails_the_job(service: Service, box: Path) -> None:
    # The folder can be written, but a folder has the name of the file.
    (box / "devices.txt").mkdir()
    job = finish(service, export(box))
    assert job["status"] == "failed"
    assert job["failureReason"].startswith("The blob devices.txt could not be written. ")
    assert MOMENT.fullmatch(job["endTimeUtc"])
    assert [file.name for file in box.iterdir()] == ["devices.txt"]
    (box / "devices.txt").rmdir()
    assert finish(service, export(box))["status"] == "completed"


def test_an_unknown_job_is_not_found(service: Service) -> None:
    for verb in ("GET", "DELETE"):
        assert check_error(service.request(verb, "/jobs/unknown"), 404, "JobNotFound") == "unknown"


# --- a slow blob service


class SlowBlobs:
    """A blob service that answers checks, but a real write only after `let` is set."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let = threading.Event()
        self.hold = "devices.txt"
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if slow.hold in self.path:
                    slow.asked.set()
                    slow.let.wait(PATIENCE)
                self.answer(201)

            def do_DELETE(self) -> None:
                self.answer(202)

            def answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None: ...  # a hub that disconnects

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.export = {
            "type": "export",
            "outputBlobContainerUri": f"http://{self.address}/account/box?sig=secret",
        }

    def close(self) -> None:
        self.let.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


@pytest.fixture
def blobs() -> Iterator[SlowBlobs]:
    running = SlowBlobs()
    yield running
    running.close()


@pytest.fixture
def hub(emulator: Emulator, blobs: SlowBlobs) -> Emulator:
    """A hub, not started, that may call the blob service and has no folders."""
    return second_hub(emulator, devices=("d",), storage_hosts=(blobs.address,))


def test_one_job_runs_at_a_time_and_can_be_cancelled(hub: Emulator, blobs: SlowBlobs) -> None:
    with hub, Service(hub) as client:
        job_id = create(client, blobs.export)["jobId"]
        assert blobs.asked.wait(PATIENCE)
        assert get(client, job_id)["status"] == "running"
        message = check_block(post(client, blobs.export), 403, "JobQuotaExceeded")
        assert message == "Job quota has been exceeded"

        response = client.request("DELETE", f"/jobs/{job_id}")
        assert (response.status_code, response.content) == (204, b"")
        assert over(client, job_id)["status"] == "cancelled"
        blobs.let.set()
        assert finish(client, blobs.export)["status"] == "completed"
        assert "secret" not in client.request("GET", "/jobs").text
        folder = {"type": "export", "outputBlobContainerUri": "file:///box"}
        message = check_block(post(client, folder), 400, INVALID_CONTAINER)
        assert "start it with --storage DIR" in message


def test_a_hub_stops_without_waiting_for_a_job(hub: Emulator, blobs: SlowBlobs) -> None:
    with hub, Service(hub) as client:
        create(client, blobs.export)
        assert blobs.asked.wait(PATIENCE)
    assert not blobs.let.is_set()


def test_a_hub_stops_without_waiting_for_a_container(
    hub: Emulator, blobs: SlowBlobs, pool: ThreadPoolExecutor
) -> None:
    blobs.hold = "iothub-check"
    with hub:
        client = Service(hub)
        asked = pool.submit(post, client, blobs.export)
        assert blobs.asked.wait(PATIENCE)
    with suppress(requests.ConnectionError):  # the hub may also close the connection
        check_error(asked.result(PATIENCE), 503, "ServiceUnavailable")
    client.close()
    assert not blobs.let.is_set()
