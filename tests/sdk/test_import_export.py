"""azure-iot-hub's IoTHubJobManager: import and export jobs, on a folder."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from tests.sdk.service_sdk import models, refused, sdk
from tests.support import wait_until

BOX = "file:///box"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the emulator finds containers."""
    root = tmp_path_factory.mktemp("storage")
    (root / "box").mkdir()
    return root


@pytest.fixture(scope="module")
def hub(emulator: Emulator, root: Path) -> Iterator[Emulator]:
    """A hub with storage, and with the certificates that the SDK trusts."""
    settings = replace(emulator.settings, mqtt_port=0, https_port=0, storage=root)
    with Emulator(settings) as running:
        yield running


@pytest.fixture
def jobs(hub: Emulator) -> Any:
    return sdk.IoTHubJobManager.from_connection_string(hub.service_connection_string)


@pytest.fixture
def devices(hub: Emulator) -> Any:
    return sdk.IoTHubRegistryManager.from_connection_string(hub.service_connection_string)


def properties(kind: str, **members: Any) -> Any:
    containers = {"output_blob_container_uri": BOX}
    if kind == "import":
        containers["input_blob_container_uri"] = BOX
    return models.JobProperties(type=kind, **{**containers, **members})


def finish(jobs: Any, asked: Any) -> Any:
    """Create a job and poll it to its end, as the SDK's samples do."""
    job = jobs.create_import_export_job(asked)
    assert (job.type, job.status, job.progress) == (asked.type, "enqueued", 0)
    active = ("enqueued", "running")
    wait_until(lambda: jobs.get_import_export_job(job.job_id).status not in active)
    return jobs.get_import_export_job(job.job_id)


def test_an_import_restores_what_an_export_has_written(jobs: Any, devices: Any, root: Path) -> None:
    device_id = f"sdk-{uuid.uuid4().hex[:12]}"
    before = devices.create_device_with_sas(device_id, "", "", "enabled")
    devices.create_module_with_sas(device_id, "m", "me", "", "")

    job = finish(jobs, properties("export", exclude_keys_in_export=False))
    assert (job.status, job.progress, job.failure_reason) == ("completed", 100, None)
    assert job.exclude_keys_in_export is False
    assert job.start_time_utc <= job.end_time_utc
    assert job.start_time_utc.tzinfo is not None
    lines = (root / "box" / "devices.txt").read_text().splitlines()
    assert [json.loads(line).get("moduleId") for line in lines] == [None, "m"]

    devices.delete_device(device_id)
    assert finish(jobs, properties("import")).status == "completed"
    assert (root / "box" / "importErrors.log").read_bytes() == b""
    after = devices.get_device(device_id)
    assert after.authentication.symmetric_key == before.authentication.symmetric_key
    assert devices.get_module(device_id, "m").managed_by == "me"

    known = {each.job_id: each for each in jobs.get_import_export_jobs()}
    assert known[job.job_id].status == "completed"
    assert {each.type for each in known.values()} == {"export", "import"}
    devices.delete_device(device_id)


def test_the_file_can_have_another_name(jobs: Any, devices: Any, root: Path) -> None:
    device_id = f"sdk-{uuid.uuid4().hex[:12]}"
    line = {"id": device_id, "status": "disabled", "importMode": "create"}
    (root / "box" / "mine.txt").write_text(json.dumps(line))
    assert finish(jobs, properties("import", input_blob_name="mine.txt")).status == "completed"
    assert devices.get_device(device_id).status == "disabled"
    job = finish(
        jobs, properties("export", output_blob_name="out.txt", include_configurations=True)
    )
    assert job.status == "completed"
    assert device_id in (root / "box" / "out.txt").read_text()
    assert (root / "box" / "configurations.txt").read_bytes() == b""
    devices.delete_device(device_id)


def test_a_job_can_be_cancelled(jobs: Any) -> None:
    job = jobs.create_import_export_job(properties("export"))
    jobs.cancel_import_export_job(job.job_id)
    # The job can have been faster.
    assert jobs.get_import_export_job(job.job_id).status in ("cancelled", "completed")


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"output_blob_container_uri": "file:///none"}, "BlobContainerValidationError"),
        (
            {"output_blob_container_uri": "https://account.blob.core.windows.net/box?sig=x"},
            "BlobContainerValidationError",
        ),
        ({"storage_authentication_type": "identityBased"}, "ManagedIdentityNotEnabled"),
        ({"type": "backup"}, "ArgumentInvalid"),
    ],
)
def test_an_invalid_job_is_refused(jobs: Any, members: dict[str, str], code: str) -> None:
    asked = properties("export")
    for name, value in members.items():
        setattr(asked, name, value)
    with refused(400, code):
        jobs.create_import_export_job(asked)


def test_an_unknown_job_is_not_found(jobs: Any) -> None:
    for call in (jobs.get_import_export_job, jobs.cancel_import_export_job):
        with refused(404, "JobNotFound"):
            call(str(uuid.uuid4()))
