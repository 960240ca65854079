"""azure-iot-hub's IoTHubJobManager, against the hub that its users reach with it."""

from __future__ import annotations

import json
import queue
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse

from emulator import Emulator
from tests.support import Device

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub import IoTHubJobManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    JobRequest,
    JobResponse,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import DeserializationError

from tests.sdk.refusals import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
]

# Long enough for a busy machine; nothing waits for it unless a test fails.
PATIENCE = 60

MakeClient = Callable[..., IoTHubDeviceClient]


@pytest.fixture
def job_manager(emulator: Emulator) -> IoTHubJobManager:
    """An IoTHubJobManager with every right."""
    return IoTHubJobManager.from_connection_string(emulator.service_connection_string)


@pytest.fixture
def job_id() -> str:
    """The id of a job that no other test knows."""
    return f"job-{uuid.uuid4().hex[:12]}"


def on(*devices: Device) -> str:
    return f"deviceId IN {[device.id for device in devices]}"


def twin_job(job_id: str, **members: Any) -> JobRequest:
    # The hub takes no other etag: the SDK leaves it to its caller to set it.
    twin = Twin(etag="*", tags={"floor": 1}, properties=TwinProperties(desired={"interval": 5}))
    members = {"update_twin": twin, "query_condition": "*", **members}
    return JobRequest(job_id=job_id, type="scheduleUpdateTwin", **members)


def method_job(job_id: str, **members: Any) -> JobRequest:
    method = CloudToDeviceMethod(method_name="reboot", payload={"delay": 1})
    members = {"cloud_to_device_method": method, "query_condition": "*", **members}
    return JobRequest(job_id=job_id, type="scheduleDeviceMethod", **members)


def when_over(job_manager: IoTHubJobManager, job_id: str) -> JobResponse:
    """Wait for a job to end; gives it."""
    deadline = time.monotonic() + PATIENCE
    while (job := job_manager.get_scheduled_job(job_id)).end_time is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def test_a_twin_is_patched_by_a_job_and_its_device_is_told(
    job_manager: IoTHubJobManager,
    registry: Any,
    client: IoTHubDeviceClient,
    device: Device,
    job_id: str,
) -> None:
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    client.on_twin_desired_properties_patch_received = patches.put
    # The handler is in place when the twin has come: its subscription was sent before.
    client.get_twin()
    before = datetime.now(UTC) - timedelta(seconds=1)
    created = job_manager.create_scheduled_job(
        job_id, twin_job(job_id, query_condition=on(device), max_execution_time_in_seconds=60)
    )
    assert isinstance(created, JobResponse)
    assert (created.job_id, created.type, created.status) == (
        job_id,
        "scheduleUpdateTwin",
        "queued",
    )
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


def test_a_method_is_invoked_by_a_job(
    job_manager: IoTHubJobManager,
    registry: Any,
    client: IoTHubDeviceClient,
    device: Device,
    job_id: str,
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

    query = QuerySpecification(query=f"SELECT * FROM devices.jobs WHERE jobId = '{job_id}'")
    answered = registry.query_iot_hub(query)
    assert answered.type == "DeviceJob"
    # The SDK takes each row for a twin: what a twin has no member for is in its raw answer only.
    assert [(row.device_id, row.status) for row in answered.items] == [(device.id, "completed")]
    (row,) = json.loads(registry.protocol.query.get_twins(query, raw=True).response.text)
    response = {"status": 202, "payload": {"asked": "reboot", "with": {"delay": 1}}}
    assert row["outcome"] == {"deviceMethodResponse": response}


def test_a_device_that_is_not_there_fails_and_the_job_does_not(
    job_manager: IoTHubJobManager, device: Device, job_id: str
) -> None:
    job_manager.create_scheduled_job(job_id, method_job(job_id, query_condition=on(device)))
    job = when_over(job_manager, job_id)
    assert (job.status, job.failure_reason) == ("completed", None)
    statistics = job.device_job_statistics
    assert (statistics.device_count, statistics.failed_count) == (1, 1)


def test_a_job_for_later_is_cancelled(job_manager: IoTHubJobManager, job_id: str) -> None:
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


def test_a_job_that_is_not_known_is_unknown(job_manager: IoTHubJobManager, job_id: str) -> None:
    job = job_manager.get_scheduled_job(job_id)
    assert (job.type, job.status) == ("unknown", "unknown")
    assert (job.created_time, job.device_job_statistics) == (None, None)
    with refused(404, "JobNotFound"):
        job_manager.cancel_scheduled_job(job_id)


def test_a_job_that_can_not_be_is_refused(job_manager: IoTHubJobManager, job_id: str) -> None:
    with refused(400, "ArgumentInvalid"):
        job_manager.create_scheduled_job(job_id, twin_job(job_id, update_twin=Twin(tags={})))
    with refused(400, "ArgumentNull"):
        job_manager.create_scheduled_job(job_id, method_job(job_id, query_condition=None))
    with refused(400, "ArgumentInvalid"):
        start = datetime.now(UTC) + timedelta(days=8)
        job_manager.create_scheduled_job(job_id, method_job(job_id, start_time=start))
    nobody = "deviceId = 'nobody'"
    job_manager.create_scheduled_job(job_id, twin_job(job_id, query_condition=nobody))
    with refused(409, "JobAlreadyExists"):
        job_manager.create_scheduled_job(job_id, twin_job(job_id, query_condition=nobody))


def test_the_list_of_jobs_is_more_than_the_sdk_can_read(
    job_manager: IoTHubJobManager, job_id: str
) -> None:
    nobody = "deviceId = 'nobody'"
    job_manager.create_scheduled_job(job_id, twin_job(job_id, query_condition=nobody))
    when_over(job_manager, job_id)
    # A hub answers with an array, where this SDK expects an object with the array in it: on a real
    # hub the call fails in the same way. Other SDKs read what is sent.
    with pytest.raises(DeserializationError, match="'list' object"):
        job_manager.query_scheduled_jobs("scheduleUpdateTwin", "completed")
