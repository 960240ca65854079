"""Scheduled jobs over plain HTTPS, on devices that are connected, or not."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http import support
from tests.messages import put_module
from tests.support import Device, Service, second_hub, wait_until

REBOOT = {"methodName": "reboot", "payload": {"delay": 1.5}}
WAITING = {**REBOOT, "connectTimeoutInSeconds": 300, "responseTimeoutInSeconds": 300}
PATCH = {"etag": "*", "tags": {"floor": 1}, "properties": {"desired": {"interval": 5}}}

Schedule = Callable[..., requests.Response]


def method_job(**members: Any) -> dict[str, Any]:
    return {"type": "scheduleDeviceMethod", "cloudToDeviceMethod": REBOOT, **members}


def twin_job(**members: Any) -> dict[str, Any]:
    return {"type": "scheduleUpdateTwin", "updateTwin": PATCH, **members}


def on(*devices: Device) -> str:
    return f"deviceId IN {[device.id for device in devices]}"


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def put_job(service: Service, job_id: str, **members: Any) -> requests.Response:
    body = {"jobId": job_id, "queryCondition": "deviceId = 'unknown'", **members}
    return service.request("PUT", f"/jobs/v2/{job_id}", json=body)


def get_job(service: Service, job_id: str) -> Any:
    return support.read(service, f"/jobs/v2/{job_id}")


def when_over(service: Service, job_id: str) -> Any:
    """Wait for a job to end; return it."""
    active = ("queued", "scheduled", "running")
    wait_until(lambda: get_job(service, job_id)["status"] not in active)
    return get_job(service, job_id)


def cancel(service: Service, job_id: str) -> requests.Response:
    return service.request("POST", f"/jobs/v2/{job_id}/cancel")


def device_jobs(service: Service, job_id: str) -> dict[str, dict[str, Any]]:
    """Read the result of a job on each device."""
    query = f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{job_id}'"
    response = service.request("POST", "/devices/query", json={"query": query})
    assert response.status_code == 200, response.text
    assert response.headers["x-ms-item-type"] == "DeviceJob"
    return {row["deviceId"]: row for row in response.json()}


@pytest.fixture
def job_id() -> str:
    """The id of a job that no other test uses."""
    return support.new_id("job")


@pytest.fixture
def schedule(service: Service, job_id: str) -> Iterator[Schedule]:
    """Creates a job; jobs that still wait when the test ends are cancelled."""

    def put(body: dict[str, Any], job_id: str = job_id) -> requests.Response:
        return put_job(service, job_id, **{"jobId": job_id, **body})

    yield put
    for job in support.read(service, "/jobs/v2/query", jobStatus="scheduled"):
        cancel(service, job["jobId"])


@pytest.fixture
def devices(emulator: Emulator, janitor: Service) -> Iterator[list[Device]]:
    """Three devices."""
    with ExitStack() as stack:
        yield [stack.enter_context(support.registered(emulator, janitor)) for _ in range(3)]


# --- direct methods


def test_a_job_invokes_a_method_on_each_device_of_its_condition(
    service: Service, emulator: Emulator, devices: list[Device], schedule: Schedule, job_id: str
) -> None:
    def refuse(call: support.Call) -> tuple[int, bytes]:
        return 503, b'"not now"'

    willing, unwilling, offline = devices
    condition = on(*devices)
    with ExitStack() as stack:
        connected = stack.enter_context(support.MethodDevice(emulator, willing, support.echo))
        stack.enter_context(support.MethodDevice(emulator, unwilling, refuse))
        response = schedule(method_job(queryCondition=condition, maxExecutionTimeInSeconds=120))
        assert response.status_code == 200
        assert response.headers["Content-Type"] == support.JSON_TYPE
        created = {"jobId": job_id, "type": "scheduleDeviceMethod", "status": "queued"}
        assert list(response.json().items()) == list(created.items())
        job = when_over(service, job_id)
        call = connected.next_call()
        assert (call.name, call.payload) == ("reboot", b'{"delay":1.5}')

    moments = [job.pop(name) for name in ("createdTime", "startTime", "endTime")]
    assert all(support.MOMENT.fullmatch(moment) for moment in moments)
    # A device that can't be reached doesn't fail the job (seen on a real hub).
    expected = {
        "jobId": job_id,
        "queryCondition": condition,
        "maxExecutionTimeInSeconds": 120,
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": REBOOT,
        "status": "completed",
        "deviceJobStatistics": {
            "deviceCount": 3,
            "failedCount": 1,
            "succeededCount": 2,
            "runningCount": 0,
            "pendingCount": 0,
        },
    }
    assert list(job.items()) == list(expected.items())
    rows = device_jobs(service, job_id)
    assert rows.keys() == {device.id for device in devices}
    assert {row["jobType"] for row in rows.values()} == {"scheduleDeviceMethod"}
    assert [rows[device.id]["outcome"] for device in (willing, unwilling)] == [
        {"deviceMethodResponse": {"status": 200, "payload": {"delay": 1.5}}},
        {"deviceMethodResponse": {"status": 503, "payload": "not now"}},
    ]
    failed = rows[offline.id]
    assert (failed["status"], failed["outcome"]) == ("failed", {})
    assert failed["error"]["code"] == "DeviceNotOnline"
    for row in rows.values():
        for name in ("startTimeUtc", "endTimeUtc", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"):
            assert support.MOMENT.fullmatch(row[name])


def test_a_job_waits_for_a_device_as_long_as_its_method_allows(
    service: Service, emulator: Emulator, device: Device, schedule: Schedule, job_id: str
) -> None:
    schedule(method_job(cloudToDeviceMethod=WAITING, queryCondition=on(device)))
    wait_until(lambda: get_job(service, job_id)["status"] == "running")
    with support.MethodDevice(emulator, device, support.echo):
        job = when_over(service, job_id)
    assert job["deviceJobStatistics"]["succeededCount"] == 1


# --- twins


def test_a_job_patches_the_twin_of_each_device_of_its_condition(
    service: Service, devices: list[Device], schedule: Schedule, job_id: str
) -> None:
    first, second, other = devices
    condition = on(first, second)
    response = schedule(twin_job(queryCondition=condition))
    assert (response.status_code, response.json()["type"]) == (200, "scheduleUpdateTwin")
    job = when_over(service, job_id)
    assert job["updateTwin"] == PATCH
    assert job["maxExecutionTimeInSeconds"] == 3600
    assert job["deviceJobStatistics"]["succeededCount"] == 2
    for device in (first, second):
        twin = support.read(service, f"/twins/{device.id}")
        assert twin["tags"] == {"floor": 1}
        assert twin["properties"]["desired"]["interval"] == 5
    assert "tags" not in support.read(service, f"/twins/{other.id}")
    outcomes = [row["outcome"] for row in device_jobs(service, job_id).values()]
    assert outcomes == [{"deviceMethodResponse": None}] * 2

    # The result is the condition of another job: nulls delete, at any depth.
    removal = {"etag": "*", "tags": None, "properties": {"desired": {"interval": None}}}
    condition = f"tags.floor = 1 AND {condition}"
    schedule(twin_job(updateTwin=removal, queryCondition=condition), job_id=f"{job_id}-2")
    assert when_over(service, f"{job_id}-2")["deviceJobStatistics"]["succeededCount"] == 2
    twin = support.read(service, f"/twins/{first.id}")
    assert "tags" not in twin
    assert "interval" not in twin["properties"]["desired"]


def test_a_job_can_be_for_modules(
    service: Service, device: Device, schedule: Schedule, job_id: str
) -> None:
    module = put_module(service, device.id, support.new_id("m"))
    schedule(twin_job(queryCondition=f"FROM devices.modules WHERE moduleId = '{module.id}'"))
    assert when_over(service, job_id)["deviceJobStatistics"]["deviceCount"] == 1
    assert support.read(service, f"/twins/{module.path}")["tags"] == {"floor": 1}
    assert "tags" not in support.read(service, f"/twins/{device.id}")
    row = device_jobs(service, job_id)[device.id]
    assert (row["moduleId"], row["status"]) == (module.id, "completed")


# --- refusals


@pytest.mark.parametrize(
    ("members", "name"),
    [
        (twin_job(updateTwin={"tags": {"a": 1}}), "ArgumentInvalid"),
        (twin_job(updateTwin=None), "ArgumentNull"),
        (method_job(startTime="2999-01-01T00:00:00Z"), "ArgumentInvalid"),
        (method_job(jobId="another"), "ArgumentInvalid"),
    ],
)
def test_an_invalid_job_is_refused(
    service: Service, schedule: Schedule, job_id: str, members: dict[str, Any], name: str
) -> None:
    support.check_error(schedule(members), 400, name)
    assert get_job(service, job_id)["status"] == "unknown"


@pytest.mark.parametrize("job_id", ["under_score", "sp%20ace", "x" * 65])
def test_an_invalid_id_is_refused(service: Service, job_id: str) -> None:
    support.check_error(put_job(service, job_id, **method_job()), 400, "ArgumentInvalid")


def test_an_id_can_be_used_once(service: Service, schedule: Schedule, job_id: str) -> None:
    assert schedule(twin_job()).status_code == 200
    when_over(service, job_id)
    assert job_id in support.check_error(schedule(method_job()), 409, "JobAlreadyExists")


def test_an_invalid_condition_is_accepted_and_fails_the_job(
    service: Service, schedule: Schedule, job_id: str
) -> None:
    assert schedule(twin_job(queryCondition="SELECT * FROM devices")).status_code == 200
    job = when_over(service, job_id)
    assert job["status"] == "failed"
    assert job["failureReason"]
    assert "deviceJobStatistics" not in job
    assert device_jobs(service, job_id) == {}


def test_an_unknown_job_has_the_status_unknown(service: Service, job_id: str) -> None:
    job = get_job(service, job_id)
    assert job == {"jobId": job_id, "type": "unknown", "status": "unknown"}
    support.check_error(cancel(service, job_id), 404, "JobNotFound")


# --- later, and the list


def test_a_job_for_later_waits_until_it_is_cancelled(
    service: Service, schedule: Schedule, job_id: str
) -> None:
    start = in_an_hour()
    assert schedule(method_job(startTime=start)).json()["status"] == "queued"
    job = get_job(service, job_id)
    assert job["status"] == "scheduled"
    assert job["startTime"][:19] == start[:19]
    assert not {"endTime", "deviceJobStatistics", "failureReason", "statusMessage"} & job.keys()

    response = cancel(service, job_id)
    assert response.status_code == 200
    assert response.json() == get_job(service, job_id)
    assert response.json()["status"] == "cancelled"
    support.check_error(cancel(service, job_id), 405, "OperationNotAllowedInCurrentState")


def test_the_list_of_jobs_is_an_array_in_pages(
    service: Service, schedule: Schedule, job_id: str
) -> None:
    ids = [f"{job_id}-{number}" for number in range(3)]
    for each in ids:
        assert schedule(method_job(startTime=in_an_hour()), job_id=each).status_code == 200

    def page(**headers: str) -> requests.Response:
        path = "/jobs/v2/query?jobType=scheduleDeviceMethod&jobStatus=scheduled"
        response = service.request("GET", path, headers={**headers})
        assert response.status_code == 200, response.text
        assert response.headers["x-ms-item-type"] == "JobResponse"
        return response

    whole = page()
    assert "x-ms-continuation" not in whole.headers
    assert [job["jobId"] for job in whole.json()] == ids
    assert whole.json() == [get_job(service, each) for each in ids]

    first = page(**{"x-ms-max-item-count": "2"})
    assert [job["jobId"] for job in first.json()] == ids[:2]
    token = first.headers["x-ms-continuation"]
    last = page(**{"x-ms-max-item-count": "2", "x-ms-continuation": token})
    assert [job["jobId"] for job in last.json()] == ids[2:]
    assert "x-ms-continuation" not in last.headers

    other = service.request("GET", "/jobs/v2/query", headers={"x-ms-continuation": token})
    support.check_error(other, 400, "ArgumentInvalid")


@pytest.mark.parametrize("query", ["jobType=reboot", "jobStatus=done"])
def test_an_unknown_type_or_status_is_refused(service: Service, query: str) -> None:
    response = service.request("GET", f"/jobs/v2/query?{query}")
    support.check_error(response, 400, "ArgumentInvalid")


# --- a second hub


def test_the_smallest_hub_has_one_slot_and_stops_with_its_job(emulator: Emulator) -> None:
    settings = ("S1", "jobs=100000/s")
    with second_hub(emulator, throttle=settings) as hub, Service(hub) as service:
        support.put_device(service, "d")
        later = method_job(queryCondition="*", startTime=in_an_hour())
        assert put_job(service, "one", **later).status_code == 200
        now = method_job(queryCondition="*", cloudToDeviceMethod=WAITING)
        refused = put_job(service, "two", **now)
        support.check_error(refused, 429, "ThrottlingMaxActiveJobCountExceeded")
        assert cancel(service, "one").status_code == 200
        assert put_job(service, "two", **now).status_code == 200
        wait_until(lambda: get_job(service, "two")["status"] == "running")
        began = time.monotonic()
    # The job waits for its device for five minutes; the hub doesn't.
    assert time.monotonic() - began < support.PATIENCE
