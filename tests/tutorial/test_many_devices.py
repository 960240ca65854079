"""The next step after the tutorial: one job reboots many devices.

The devices are unmodified SDK clients that do what the device script does, without its 20 seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse

from emulator import Emulator
from tests.processes import PATIENCE
from tests.support import Service

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, JobRequest, QuerySpecification, Twin

pytestmark = pytest.mark.filterwarnings(
    "ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"
)

DEVICES = 5
ANSWER = {"Response": "This is the response from the device"}


class SimulatedDevice:
    """A device that reboots on request, and reports the time of the reboot in its twin."""

    def __init__(self, connection_string: str) -> None:
        self._client = IoTHubDeviceClient.create_from_connection_string(connection_string)
        self._client.on_method_request_received = self._reboot
        self._client.connect()

    def _reboot(self, request: MethodRequest) -> None:
        # The twin comes before the answer, as in the tutorial.
        self._client.patch_twin_reported_properties({"rebootTime": str(datetime.now())})
        status = 200 if request.name == "rebootDevice" else 404
        self._client.send_method_response(MethodResponse(request.request_id, status, ANSWER))

    def shut_down(self) -> None:
        self._client.shutdown()


@pytest.fixture
def fleet(emulator: Emulator, janitor: Service) -> Iterator[str]:
    """The tag of a fleet: connected devices, and one that is offline."""
    fleet = f"fleet-{uuid.uuid4().hex[:8]}"
    ids = [f"{fleet}-{number}" for number in range(DEVICES)]
    registry = IoTHubRegistryManager.from_connection_string(emulator.service_connection_string)
    devices = []
    for device_id in [*ids, f"{fleet}-spare"]:
        connection_string = emulator.register_device(device_id)
        registry.update_twin(device_id, Twin(tags={"fleet": fleet}))
        if device_id in ids:
            devices.append(SimulatedDevice(connection_string))
    yield fleet
    for device in devices:
        device.shut_down()
    for device_id in [*ids, f"{fleet}-spare"]:
        janitor.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})


def query(registry: IoTHubRegistryManager, text: str) -> list[dict[str, Any]]:
    """Query the hub. The SDK parses each row as a twin, so read the raw response instead."""
    specification = QuerySpecification(query=text)
    answer = registry.protocol.query.get_twins(specification, raw=True).response.text
    rows: list[dict[str, Any]] = json.loads(answer)
    return rows


def test_one_job_reboots_a_fleet(emulator: Emulator, fleet: str) -> None:
    jobs = IoTHubJobManager.from_connection_string(emulator.service_connection_string)
    registry = IoTHubRegistryManager.from_connection_string(emulator.service_connection_string)
    rebooted = (
        "SELECT deviceId FROM devices "
        f"WHERE tags.fleet = '{fleet}' AND is_defined(properties.reported.rebootTime)"
    )
    assert query(registry, rebooted) == []

    # Schedule the job.
    job_id = f"reboot-{uuid.uuid4().hex[:12]}"
    method = CloudToDeviceMethod(
        method_name="rebootDevice", payload='{"method_number":"42"}', response_timeout_in_seconds=60
    )
    request = JobRequest(
        job_id=job_id,
        type="scheduleDeviceMethod",
        cloud_to_device_method=method,
        query_condition=f"tags.fleet = '{fleet}'",
        start_time=datetime.now().astimezone(),
        max_execution_time_in_seconds=300,
    )
    assert jobs.create_scheduled_job(job_id, request).status == "queued"

    # Wait until it completes.
    deadline = time.monotonic() + PATIENCE
    while (job := jobs.get_scheduled_job(job_id)).status != "completed":
        assert job.status in ("queued", "scheduled", "running")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    statistics = job.device_job_statistics
    assert (statistics.device_count, statistics.succeeded_count) == (DEVICES + 1, DEVICES)
    assert (statistics.failed_count, statistics.pending_count) == (1, 0)

    # Read the result of the job on each device.
    rows = query(registry, f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{job_id}'")
    results = {row["deviceId"]: row for row in rows}
    spare = results.pop(f"{fleet}-spare")
    assert (spare["status"], spare["error"]["code"]) == ("failed", "DeviceNotOnline")
    assert set(results) == {f"{fleet}-{number}" for number in range(DEVICES)}
    for row in results.values():
        assert row["status"] == "completed"
        assert row["outcome"]["deviceMethodResponse"] == {"status": 200, "payload": ANSWER}

    # Each device that answered has reported the time of its reboot.
    assert {row["deviceId"] for row in query(registry, rebooted)} == set(results)
    for device_id in results:
        assert registry.get_twin(device_id).properties.reported["rebootTime"]
