"""Import and export jobs over plain HTTPS, on folders and on a blob service of the test's."""

from __future__ import annotations

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

from emulator import Emulator, Settings
from tests.http.support import PATIENCE, check_error, put_device
from tests.support import Service

MOMENT = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the emulator finds containers in."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def emulator(
    emulator: Emulator, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """An emulator with storage; it has the certificates of the others, so that it is trusted."""
    settings = Settings(
        host=emulator.settings.host,
        mqtt_port=0,
        https_port=0,
        devices=(),
        cert_dir=emulator.settings.cert_dir,
        storage=root,
    )
    with Emulator(settings) as running:
        yield running


@pytest.fixture(scope="module")
def service(emulator: Emulator) -> Iterator[Service]:
    client = Service(emulator)
    yield client
    client.close()


@pytest.fixture
def box(root: Path) -> Iterator[Path]:
    """A folder that is a container, of this test alone."""
    folder = root / f"box-{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_devices(service: Service) -> None:
    """Begin with an empty registry: an export is of all that is there."""
    for device in service.request("GET", "/devices").json():
        service.request("DELETE", f"/devices/{device['deviceId']}", headers={"If-Match": "*"})


def uri(box: Path) -> str:
    return f"file:///{box.name}"


def export(box: Path, **members: object) -> dict[str, object]:
    return {"type": "export", "outputBlobContainerUri": uri(box), **members}


def import_(box: Path, **members: object) -> dict[str, object]:
    both = {"inputBlobContainerUri": uri(box), "outputBlobContainerUri": uri(box)}
    return {"type": "import", **both, **members}


def create(service: Service, body: object) -> dict[str, Any]:
    response = service.request("POST", "/jobs/create", json=body)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job


def over(service: Service, job_id: str) -> dict[str, Any]:
    """Wait for the end of a job, as a client does; gives it as it is then."""
    while True:
        job: dict[str, Any] = service.request("GET", f"/jobs/{job_id}").json()
        if job["status"] not in ("enqueued", "running"):
            return job


def finish(service: Service, body: object) -> dict[str, Any]:
    return over(service, create(service, body)["jobId"])


def write_lines(file: Path, *items: object) -> None:
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def ids(service: Service) -> list[str]:
    return [device["deviceId"] for device in service.request("GET", "/devices").json()]


# --- what is asked for, and what comes of it


def test_an_export_is_told_of_as_a_hub_tells_it(service: Service, box: Path) -> None:
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
    listed = service.request("GET", "/jobs")
    assert listed.status_code == 200
    assert listed.json()[-1] == after

    (line,) = read_lines(box / "devices.txt")
    identity = service.request("GET", "/devices/d").json()
    assert (line["id"], line["eTag"], line["status"]) == ("d", identity["etag"], "enabled")
    assert line["authentication"] == identity["authentication"]
    if sys.platform != "win32":
        assert stat.S_IMODE((box / "devices.txt").stat().st_mode) == 0o600


def test_an_export_brings_everything_back(service: Service, box: Path) -> None:
    put_device(service, "d", statusReason="new")
    module = {"deviceId": "d", "moduleId": "m"}
    service.request("PUT", "/devices/d/modules/m", json=module)
    patch = {"tags": {"floor": 1}, "properties": {"desired": {"a": {"b": 1.5}}}}
    service.request("PATCH", "/twins/d", json=patch)
    service.request("PATCH", "/twins/d/modules/m", json=patch)
    configuration = {"id": "c", "content": {"deviceContent": {"properties.desired.c": 1}}}
    assert service.request("PUT", "/configurations/c", json=configuration).status_code == 200

    paths = ("/devices/d", "/devices/d/modules/m", "/twins/d", "/twins/d/modules/m")
    before = [service.request("GET", path).json() for path in paths]
    assert finish(service, export(box, includeConfigurations=True))["status"] == "completed"
    assert len(read_lines(box / "devices.txt")) == 2
    (line,) = read_lines(box / "configurations.txt")
    assert (line["Id"], line["Content"]) == (
        "c",
        {"DeviceContent": {"properties.desired.c": 1}},
    )

    service.request("DELETE", "/devices/d", headers={"If-Match": "*"})
    service.request("DELETE", "/configurations/c")
    assert finish(service, import_(box, includeConfigurations=True))["status"] == "completed"
    assert (box / "importErrors.log").read_bytes() == b""
    after = [service.request("GET", path).json() for path in paths]
    for old, new in zip(before, after, strict=True):
        assert new.get("authentication") == old.get("authentication")
        assert new.get("statusReason") == old.get("statusReason")
        assert new.get("tags") == old.get("tags")
        if "properties" in old:
            assert new["properties"]["desired"]["a"] == {"b": 1.5}
    content = service.request("GET", "/configurations/c").json()["content"]
    assert content == configuration["content"]
    service.request("DELETE", "/configurations/c")


def test_blobs_have_the_names_that_are_asked_for(service: Service, box: Path) -> None:
    put_device(service, "d")
    names = {"outputBlobName": "mine.txt", "configurationsBlobName": "c.txt"}
    finish(service, export(box, includeConfigurations=True, **names))
    assert sorted(file.name for file in box.iterdir()) == ["c.txt", "mine.txt"]
    write_lines(box / "theirs.txt", {"id": "e", "status": "enabled"})
    finish(service, import_(box, inputBlobName="theirs.txt"))
    assert ids(service) == ["d", "e"]


def test_keys_can_be_left_out(service: Service, box: Path) -> None:
    keys = put_device(service, "d")["authentication"]["symmetricKey"]
    assert finish(service, export(box, excludeKeysInExport=True))["excludeKeysInExport"] is True
    text = (box / "devices.txt").read_text()
    assert not any(key in text for key in keys.values())
    warning, line = text.splitlines()
    assert warning.startswith("Warning: ")
    assert json.loads(line)["authentication"] is None


def test_an_import_is_completed_even_if_lines_fail(service: Service, box: Path) -> None:
    put_device(service, "old")
    write_lines(
        box / "devices.txt",
        {"id": "old", "importMode": "create", "status": "enabled"},
        {"id": "new"},
        {"id": "newer", "status": "enabled"},
    )
    job = finish(service, import_(box))
    assert (job["type"], job["status"], job["progress"]) == ("import", "completed", 100)
    assert "failureReason" not in job
    exists, stateless = read_lines(box / "importErrors.log")
    assert exists == {
        "deviceId": "old",
        "errorCode": 409001,
        "errorStatus": "A device with ID 'old' is already registered.",
    }
    assert stateless["errorCode"] == 400012
    assert ids(service) == ["old", "newer"]


def test_ten_thousand_devices_come_and_go(service: Service, box: Path) -> None:
    items = [{"id": f"d{number}", "status": "enabled"} for number in range(10_000)]
    write_lines(box / "devices.txt", *items)
    job_id = create(service, import_(box))["jobId"]
    progress = []
    while (job := service.request("GET", f"/jobs/{job_id}").json())["status"] != "completed":
        assert job["status"] in ("enqueued", "running")
        progress.append(job["progress"])
    assert progress == sorted(progress)
    statistics = service.request("GET", "/statistics/devices").json()
    assert statistics["totalDeviceCount"] == 10_000
    finish(service, export(box))
    exported = read_lines(box / "devices.txt")
    assert [each["id"] for each in exported] == [each["id"] for each in items]
    write_lines(box / "devices.txt", *({**each, "importMode": "delete"} for each in exported))
    finish(service, import_(box))
    assert (box / "importErrors.log").read_bytes() == b""
    assert ids(service) == []


# --- failures


def check_block(response: requests.Response, status: int, name: str) -> str:
    """Check an error of these jobs, whose text has several lines; gives its message."""
    text = check_error(response, status, name)
    first, message, timestamp, tracking = text.split("\r\n")
    assert first == f"Error: {status} ErrorCode: {name}"
    assert re.fullmatch(r"Timestamp: \d\d/\d\d/\d{4} \d\d:\d\d:\d\d", timestamp)
    assert tracking == "Tracking ID: "
    assert ";" not in text  # where the SDK for Node would cut it off
    return message.removeprefix("Message: ")


BAD = "BlobContainerValidationError"


def test_a_container_that_can_not_be_used_is_an_error_at_once(service: Service, box: Path) -> None:
    start = "Unauthorized to write to output blob container. "
    before = service.request("GET", "/jobs").json()
    for container, said in (
        ("file:///none", "There is no folder none in the one that --storage names: make it."),
        ("file:///..", "can't be the name of a folder"),
        ("file:///etc/passwd", "The URI of a folder is file:///NAME"),
        ("https://example.com/box?sig=secret", "does not call example.com:443"),
        ("http://127.0.0.1:80/box?sig=secret", "--storage-host 127.0.0.1:80."),
        ("nonsense", "neither file:///NAME nor a URL"),
    ):
        body = export(box, outputBlobContainerUri=container)
        message = check_block(service.request("POST", "/jobs/create", json=body), 400, BAD)
        assert message.startswith(start)
        assert said in message
        assert "secret" not in message
    response = service.request("POST", "/jobs/create", json=import_(box))
    message = check_block(response, 400, BAD)
    assert message.startswith("Failed to read devices blob from the input container. ")
    assert service.request("GET", "/jobs").json() == before


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ([], "DeserializationError"),
        ({"type": "export"}, "ArgumentNull"),
        ({"type": "firmwareUpdate", "outputBlobContainerUri": "file:///x"}, "ArgumentInvalid"),
        (
            {
                "type": "export",
                "outputBlobContainerUri": "https://x/y",
                "storageAuthenticationType": "identityBased",
                "identity": {"userAssignedIdentity": "/subscriptions/…"},
            },
            "ManagedIdentityNotEnabled",
        ),
    ],
)
def test_a_request_that_is_none_is_refused(service: Service, body: object, name: str) -> None:
    check_error(service.request("POST", "/jobs/create", json=body), 400, name)


def test_storage_that_is_gone_midway_fails_the_job(service: Service, box: Path) -> None:
    # It may be written, but the file that is to come can't take its place.
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
        assert check_error(service.request(verb, "/jobs/nobody"), 404, "JobNotFound") == "nobody"


def test_a_job_that_is_over_can_be_cancelled_to_no_effect(service: Service, box: Path) -> None:
    job = finish(service, export(box))
    response = service.request("DELETE", f"/jobs/{job['jobId']}")
    assert (response.status_code, response.content) == (204, b"")
    assert over(service, job["jobId"]) == job


OPERATIONS = [
    ("POST", "/jobs/create", {"registryReadWrite", "iothubowner"}),
    ("GET", "/jobs", {"registryRead", "registryReadWrite", "iothubowner"}),
    ("GET", "/jobs/nobody", {"registryRead", "registryReadWrite", "iothubowner"}),
    ("DELETE", "/jobs/nobody", {"registryReadWrite", "iothubowner"}),
]


@pytest.mark.parametrize(
    "policy", ["iothubowner", "registryReadWrite", "registryRead", "service", "device"]
)
def test_jobs_need_the_rights_of_the_registry(emulator: Emulator, policy: str) -> None:
    client = Service(emulator, policy)
    for verb, path, allowed in OPERATIONS:
        response = client.request(verb, path, json=[] if verb == "POST" else None)
        if policy in allowed:
            assert response.status_code in (200, 400, 404)
        else:
            check_error(response, 401, "IotHubUnauthorizedAccess")
    client.close()


# --- a blob service that takes its time


class SlowBlobs:
    """A blob service that answers checks, and a real write only when it is let."""

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
            def handle_error(self, *_: object) -> None: ...  # a hub that hangs up

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
        self._thread.join()


@pytest.fixture
def blobs() -> Iterator[SlowBlobs]:
    running = SlowBlobs()
    yield running
    running.close()


@pytest.fixture
def other(emulator: Emulator, blobs: SlowBlobs) -> Emulator:
    """An emulator that may call the blob service; it is entered by the test."""
    return Emulator(
        Settings(
            host=emulator.settings.host,
            mqtt_port=0,
            https_port=0,
            devices=("d",),
            cert_dir=emulator.settings.cert_dir,
            storage_hosts=(blobs.address,),
        )
    )


def test_one_job_runs_at_a_time_and_can_be_cancelled(other: Emulator, blobs: SlowBlobs) -> None:
    with other:
        client = Service(other)
        job = create(client, blobs.export)
        assert blobs.asked.wait(PATIENCE)
        assert client.request("GET", f"/jobs/{job['jobId']}").json()["status"] == "running"
        response = client.request("POST", "/jobs/create", json=blobs.export)
        message = check_block(response, 403, "JobQuotaExceeded")
        assert message == "Job quota has been exceeded"

        response = client.request("DELETE", f"/jobs/{job['jobId']}")
        assert (response.status_code, response.content) == (204, b"")
        assert over(client, job["jobId"])["status"] == "cancelled"
        blobs.let.set()
        assert finish(client, blobs.export)["status"] == "completed"
        assert "secret" not in client.request("GET", "/jobs").text
        client.close()


def test_a_stopping_hub_waits_for_no_job(other: Emulator, blobs: SlowBlobs) -> None:
    with other:
        client = Service(other)
        create(client, blobs.export)
        assert blobs.asked.wait(PATIENCE)
        client.close()
    assert not blobs.let.is_set()


def test_a_stopping_hub_waits_for_no_container(other: Emulator, blobs: SlowBlobs) -> None:
    blobs.hold = "iothub-check"
    with ThreadPoolExecutor() as threads:
        with other:
            client = Service(other)
            asked = threads.submit(client.request, "POST", "/jobs/create", json=blobs.export)
            assert blobs.asked.wait(PATIENCE)
        with suppress(requests.ConnectionError):  # it may be cut off, which is as good
            check_error(asked.result(), 503, "ServiceUnavailable")
        client.close()
    assert not blobs.let.is_set()


# --- which storage an emulator has


def test_without_an_option_there_are_no_folders(other: Emulator) -> None:
    with other:
        client = Service(other)
        body = {"type": "export", "outputBlobContainerUri": "file:///box"}
        message = check_block(client.request("POST", "/jobs/create", json=body), 400, BAD)
        assert "start it with --storage DIR" in message
        client.close()
