"""azure-iot-hub's IoTHubJobManager, against a hub."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse

from emulator import Emulator
from tests.sdk.service_sdk import DeserializationError, method, models, refused, sdk, twin_of
from tests.sdk.support import desired_patches
from tests.support import PATIENCE, Device, wait_until


@pytest.fixture
def job_manager(emulator: Emulator) -> Any:
    """An IoTHubJobManager with every right."""
    return sdk.IoTHubJobManager.from_connection_string(emulator.service_connection_string)


@pytest.fixture
def job_id() -> str:
    """The id of a job that no other test uses."""
    return f"job-{uuid.uuid4().hex[:12]}"


def on(*devices: Device) -> str:
    return f"deviceId IN {[device.id for device in devices]}"


def twin_job(job_id: str, **members: Any) -> Any:
    # The hub accepts no other etag, and the SDK does not set it.
    twin = twin_of({"interval": 5}, tags={"floor": 1}, etag="*")
    members = {"update_twin": twin, "query_condition": "*", **members}
    return models.JobRequest(job_id=job_id, type="scheduleUpdateTwin", **members)


def method_job(job_id: str, **members: Any) -> Any:
    reboot = method("reboot", {"delay": 1})
    members = {"cloud_to_device_method": reboot, "query_condition": "*", **members}
    return models.JobRequest(job_id=job_id, type="scheduleDeviceMethod", **members)


def when_over(job_manager: Any, job_id: str) -> Any:
    """Wait for a job to end; return it."""
    wait_until(lambda: job_manager.get_scheduled_job(job_id).end_time is not None)
    return job_manager.get_scheduled_job(job_id)


def test_a_job_patches_a_twin_and_the_device_receives_the_patch(
    job_manager: Any, registry: Any, client: IoTHubDeviceClient, device: Device, job_id: str
) -> None:
    patches = desired_patches(client)
    # By the answer to this call the device is subscribed.
    client.get_twin()
    before = datetime.now(UTC) - timedelta(seconds=1)
    created = job_manager.create_scheduled_job(
        job_id, twin_job(job_id, query_condition=on(device), max_execution_time_in_seconds=60)
    )
    assert isinstance(created, models.JobResponse)
    assert (created.job_id, created.type) == (job_id, "scheduleUpdateTwin")
    assert created.status == "queued"
    job = when_over(job_manager, job_id)
    assert (job.job_id, job.type, job.status) == (job_id, "scheduleUpdateTwin", "completed")
    assert job.query_condition == on(device)
    assert job.max_execution_time_in_seconds == 60
    assert before < job.created_time <= job.end_time
    assert before < job.start_time <= job.end_time
    assert (job.update_twin.etag, job.update_twin.tags) == ("*", {"floor": 1})
    assert job.cloud_to_device_method is None
    assert (job.failure_reason, job.status_message) == (None, None)
    statistics = job.device_job_statistics
    assert (statistics.device_count, statistics.succeeded_count) == (1, 1)
    assert (statistics.failed_count, statistics.running_count, statistics.pending_count) == (0,) * 3

    assert patches.get(timeout=PATIENCE) == {"interval": 5, "$version": 2}
    assert registry.get_twin(device.id).tags == {"floor": 1}


def test_a_job_invokes_a_method(
    job_manager: Any, registry: Any, client: IoTHubDeviceClient, device: Device, job_id: str
) -> None:
    def answer(request: MethodRequest) -> None:
        payload = {"asked": request.name, "with": request.payload}
        client.send_method_response(MethodResponse(request.request_id, 202, payload))

    client.on_method_request_received = answer
    job_manager.create_scheduled_job(job_id, method_job(job_id, query_condition=on(device)))
    job = when_over(job_manager, job_id)
    assert job.device_job_statistics.succeeded_count == 1
    assert job.cloud_to_device_method.method_name == "reboot"
    assert job.cloud_to_device_method.payload == {"delay": 1}
    assert job.update_twin is None

    query = models.QuerySpecification(query=f"SELECT * FROM devices.jobs WHERE jobId = '{job_id}'")
    answered = registry.query_iot_hub(query)
    assert answered.type == "DeviceJob"
    # The SDK makes a twin of each row: members that a twin lacks are in its raw answer only.
    assert [(row.device_id, row.status) for row in answered.items] == [(device.id, "completed")]
    (row,) = json.loads(registry.protocol.query.get_twins(query, raw=True).response.text)
    response = {"status": 202, "payload": {"asked": "reboot", "with": {"delay": 1}}}
    assert row["outcome"] == {"deviceMethodResponse": response}


def test_an_offline_device_fails_but_its_job_does_not(
    job_manager: Any, device: Device, job_id: str
) -> None:
    job_manager.create_scheduled_job(job_id, method_job(job_id, query_condition=on(device)))
    job = when_over(job_manager, job_id)
    assert (job.status, job.failure_reason) == ("completed", None)
    statistics = job.device_job_statistics
    assert (statistics.device_count, statistics.failed_count) == (1, 1)


def test_a_job_for_later_is_cancelled(job_manager: Any, job_id: str) -> None:
    start = datetime.now(UTC) + timedelta(days=1)
    created = job_manager.create_scheduled_job(job_id, method_job(job_id, start_time=start))
    assert created.status == "queued"
    job = job_manager.get_scheduled_job(job_id)
    assert (job.status, job.start_time) == ("scheduled", start)
    assert (job.end_time, job.device_job_statistics) == (None, None)
    cancelled = job_manager.cancel_scheduled_job(job_id)
    assert (cancelled.job_id, cancelled.status) == (job_id, "cancelled")
    assert job_manager.get_scheduled_job(job_id).status == "cancelled"
    with refused(405, "OperationNotAllowedInCurrentState"):
        job_manager.cancel_scheduled_job(job_id)


def test_an_unknown_job_has_the_status_unknown(job_manager: Any, job_id: str) -> None:
    job = job_manager.get_scheduled_job(job_id)
    assert (job.type, job.status) == ("unknown", "unknown")
    assert (job.created_time, job.device_job_statistics) == (None, None)
    with refused(404, "JobNotFound"):
        job_manager.cancel_scheduled_job(job_id)


def test_an_invalid_job_is_refused(job_manager: Any, job_id: str) -> None:
    with refused(400, "ArgumentInvalid"):
        job_manager.create_scheduled_job(job_id, twin_job(job_id, update_twin=models.Twin(tags={})))
    with refused(400, "ArgumentNull"):
        job_manager.create_scheduled_job(job_id, method_job(job_id, query_condition=None))
    with refused(400, "ArgumentInvalid"):
        start = datetime.now(UTC) + timedelta(days=8)
        job_manager.create_scheduled_job(job_id, method_job(job_id, start_time=start))
    unknown = "deviceId = 'unknown'"
    job_manager.create_scheduled_job(job_id, twin_job(job_id, query_condition=unknown))
    with refused(409, "JobAlreadyExists"):
        job_manager.create_scheduled_job(job_id, twin_job(job_id, query_condition=unknown))


def test_the_sdk_cannot_read_the_list_of_jobs(job_manager: Any, job_id: str) -> None:
    unknown = "deviceId = 'unknown'"
    job_manager.create_scheduled_job(job_id, twin_job(job_id, query_condition=unknown))
    when_over(job_manager, job_id)
    # A hub answers with an array, where this SDK expects an object with the array in it: on a real
    # hub the call fails in the same way. Other SDKs read what is sent.
    with pytest.raises(DeserializationError, match="'list' object"):
        job_manager.query_scheduled_jobs("scheduleUpdateTwin", "completed")
