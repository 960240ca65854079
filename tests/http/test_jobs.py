"""Scheduled jobs over plain HTTPS, on devices that are connected, or not."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests

from emulator import Emulator, Settings
from tests.http.support import (
    PATIENCE,
    Call,
    MethodDevice,
    check_error,
    echo,
    put_device,
    silence,
)
from tests.support import Device, Service, free_loopback_address

REBOOT = {"methodName": "reboot", "payload": {"delay": 1.5}}
WAITING = {**REBOOT, "connectTimeoutInSeconds": 300, "responseTimeoutInSeconds": 300}
PATCH = {"etag": "*", "tags": {"floor": 1}, "properties": {"desired": {"interval": 5}}}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z")

Schedule = Callable[..., requests.Response]


def method_job(**members: Any) -> dict[str, Any]:
    return {"type": "scheduleDeviceMethod", "cloudToDeviceMethod": REBOOT, **members}


def twin_job(**members: Any) -> dict[str, Any]:
    return {"type": "scheduleUpdateTwin", "updateTwin": PATCH, **members}


def on(*device_ids: str) -> str:
    return f"deviceId IN {list(device_ids)}"


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def get_job(service: Service, job_id: str) -> dict[str, Any]:
    response = service.request("GET", f"/jobs/v2/{job_id}")
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job


def when_over(service: Service, job_id: str) -> dict[str, Any]:
    """Wait for a job to end; gives it."""
    deadline = time.monotonic() + PATIENCE
    while (job := get_job(service, job_id))["status"] in ("queued", "scheduled", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job


def device_jobs(service: Service, job_id: str) -> list[dict[str, Any]]:
    """Read what became of a job on each device."""
    query = f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{job_id}'"
    response = service.request("POST", "/devices/query", json={"query": query})
    assert response.status_code == 200, response.text
    assert response.headers["x-ms-item-type"] == "DeviceJob"
    rows: list[dict[str, Any]] = response.json()
    return rows


@pytest.fixture
def job_id() -> str:
    """The id of a job that no other test knows."""
    return f"job-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def schedule(service: Service, job_id: str) -> Iterator[Schedule]:
    """Asks for a job; what still waits when the test ends is cancelled."""

    def put(body: dict[str, Any], job_id: str = job_id) -> requests.Response:
        body = {"jobId": job_id, "queryCondition": "deviceId = 'nobody'", **body}
        return service.request("PUT", f"/jobs/v2/{job_id}", json=body)

    yield put
    for job in service.request("GET", "/jobs/v2/query?jobStatus=scheduled").json():
        service.request("POST", f"/jobs/v2/{job['jobId']}/cancel")


@pytest.fixture
def devices(emulator: Emulator, janitor: Service) -> Iterator[list[Device]]:
    """Three devices."""
    devices = []
    for _ in range(3):
        device_id = f"device-{uuid.uuid4().hex[:12]}"
        key = emulator.register_device(device_id).partition(";SharedAccessKey=")[2]
        devices.append(Device(device_id, key, ""))
    yield devices
    for device in devices:
        janitor.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})


# --- direct methods


def test_a_job_invokes_a_method_on_the_devices_that_it_finds(
    service: Service,
    emulator: Emulator,
    devices: list[Device],
    schedule: Schedule,
    job_id: str,
) -> None:
    def refuse(call: Call) -> tuple[int, bytes]:
        return 503, b'"not now"'

    willing, unwilling, offline = devices
    condition = on(*(device.id for device in devices))
    with ExitStack() as stack:
        connected = stack.enter_context(MethodDevice(emulator, willing, echo))
        stack.enter_context(MethodDevice(emulator, unwilling, refuse))
        response = schedule(method_job(queryCondition=condition, maxExecutionTimeInSeconds=120))
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert list(response.json().items()) == [
            ("jobId", job_id),
            ("type", "scheduleDeviceMethod"),
            ("status", "queued"),
        ]
        job = when_over(service, job_id)
        call = connected.next_call()
        assert (call.name, call.payload) == ("reboot", b'{"delay":1.5}')

    moments = [job.pop(name) for name in ("createdTime", "startTime", "endTime")]
    assert all(MOMENT.fullmatch(moment) for moment in moments)
    # A device that can't be reached doesn't fail the job (seen on a real hub).
    assert list(job.items()) == [
        ("jobId", job_id),
        ("queryCondition", condition),
        ("maxExecutionTimeInSeconds", 120),
        ("type", "scheduleDeviceMethod"),
        ("cloudToDeviceMethod", REBOOT),
        ("status", "completed"),
        (
            "deviceJobStatistics",
            {
                "deviceCount": 3,
                "failedCount": 1,
                "succeededCount": 2,
                "runningCount": 0,
                "pendingCount": 0,
            },
        ),
    ]
    rows = {row["deviceId"]: row for row in device_jobs(service, job_id)}
    assert set(rows) == {device.id for device in devices}
    assert {row["jobType"] for row in rows.values()} == {"scheduleDeviceMethod"}
    results = [rows[device.id]["outcome"] for device in (willing, unwilling)]
    assert results == [
        {"deviceMethodResponse": {"status": 200, "payload": {"delay": 1.5}}},
        {"deviceMethodResponse": {"status": 503, "payload": "not now"}},
    ]
    failed = rows[offline.id]
    assert (failed["status"], failed["outcome"]) == ("failed", {})
    assert failed["error"]["code"] == "DeviceNotOnline"
    for row in rows.values():
        for name in ("startTimeUtc", "endTimeUtc", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"):
            assert MOMENT.fullmatch(row[name])


def test_a_device_that_goes_while_it_is_asked_has_failed(
    service: Service, emulator: Emulator, devices: list[Device], schedule: Schedule, job_id: str
) -> None:
    leaver, deleted, _ = devices
    with (
        MethodDevice(emulator, leaver, silence) as first,
        MethodDevice(emulator, deleted, silence) as second,
    ):
        schedule(method_job(queryCondition=on(leaver.id, deleted.id)))
        for connected in (first, second):
            connected.next_call()
        job = get_job(service, job_id)
        assert job["status"] == "running"
        assert job["deviceJobStatistics"]["runningCount"] == 2
        assert "endTime" not in job
        refused = service.request("POST", f"/jobs/v2/{job_id}/cancel")
        check_error(refused, 405, "OperationNotAllowedInCurrentState")
        first.disconnect()
        service.request("DELETE", f"/devices/{deleted.id}", headers={"If-Match": "*"})
        job = when_over(service, job_id)
    assert (job["status"], job["deviceJobStatistics"]["failedCount"]) == ("completed", 2)
    # What became of it is told of a device that is gone as well.
    rows = {row["deviceId"]: row for row in device_jobs(service, job_id)}
    assert rows.keys() == {leaver.id, deleted.id}
    assert {row["error"]["code"] for row in rows.values()} == {"DeviceNotOnline"}


def test_a_job_waits_for_a_device_as_long_as_its_method_does(
    service: Service, emulator: Emulator, device: Device, schedule: Schedule, job_id: str
) -> None:
    schedule(method_job(cloudToDeviceMethod=WAITING, queryCondition=on(device.id)))
    while get_job(service, job_id)["status"] != "running":
        pass
    with MethodDevice(emulator, device, echo):
        job = when_over(service, job_id)
    assert job["deviceJobStatistics"]["succeededCount"] == 1


# --- twins


def test_a_job_patches_the_twins_that_it_finds(
    service: Service, devices: list[Device], schedule: Schedule, job_id: str
) -> None:
    first, second, other = devices
    condition = on(first.id, second.id)
    response = schedule(twin_job(queryCondition=condition))
    assert (response.status_code, response.json()["type"]) == (200, "scheduleUpdateTwin")
    job = when_over(service, job_id)
    assert job["updateTwin"] == PATCH
    assert job["maxExecutionTimeInSeconds"] == 3600
    assert job["deviceJobStatistics"]["succeededCount"] == 2
    for device in (first, second):
        twin = service.request("GET", f"/twins/{device.id}").json()
        assert twin["tags"] == {"floor": 1}
        assert twin["properties"]["desired"]["interval"] == 5
    assert "tags" not in service.request("GET", f"/twins/{other.id}").json()
    rows = device_jobs(service, job_id)
    assert [row["outcome"] for row in rows] == [{"deviceMethodResponse": None}] * 2

    # Its own result is a condition: nulls delete, at any depth.
    removal = {"etag": "*", "tags": None, "properties": {"desired": {"interval": None}}}
    condition = f"tags.floor = 1 AND {condition}"
    schedule(twin_job(updateTwin=removal, queryCondition=condition), job_id=f"{job_id}-2")
    assert when_over(service, f"{job_id}-2")["deviceJobStatistics"]["succeededCount"] == 2
    twin = service.request("GET", f"/twins/{first.id}").json()
    assert "tags" not in twin
    assert "interval" not in twin["properties"]["desired"]


def test_a_job_is_for_modules_if_it_says_so(
    service: Service, device: Device, schedule: Schedule, job_id: str
) -> None:
    module = f"m-{uuid.uuid4().hex[:8]}"
    path = f"{device.id}/modules/{module}"
    identity = {"deviceId": device.id, "moduleId": module}
    assert service.request("PUT", f"/devices/{path}", json=identity).status_code == 200
    schedule(twin_job(queryCondition=f"FROM devices.modules WHERE moduleId = '{module}'"))
    assert when_over(service, job_id)["deviceJobStatistics"]["deviceCount"] == 1
    assert service.request("GET", f"/twins/{path}").json()["tags"] == {"floor": 1}
    assert "tags" not in service.request("GET", f"/twins/{device.id}").json()
    (row,) = device_jobs(service, job_id)
    assert (row["deviceId"], row["moduleId"], row["status"]) == (device.id, module, "completed")


# --- refusals


@pytest.mark.parametrize(
    ("members", "name"),
    [
        (twin_job(updateTwin={"tags": {"a": 1}}), "ArgumentInvalid"),
        (twin_job(updateTwin={**PATCH, "etag": "AAAAAAAAAAE="}), "ArgumentInvalid"),
        (twin_job(updateTwin=None), "ArgumentNull"),
        (twin_job(type="scheduleReboot"), "ArgumentInvalid"),
        (method_job(cloudToDeviceMethod={"payload": 1}), "ArgumentNull"),
        (
            method_job(cloudToDeviceMethod={**REBOOT, "responseTimeoutInSeconds": 301}),
            "ArgumentInvalid",
        ),
        (method_job(startTime="2999-01-01T00:00:00Z"), "ArgumentInvalid"),
        (method_job(startTime="soon"), "ArgumentInvalid"),
        (method_job(jobId="another"), "ArgumentInvalid"),
        (method_job(queryCondition=None), "ArgumentNull"),
        (method_job(maxExecutionTimeInSeconds=-1), "ArgumentInvalid"),
    ],
)
def test_a_job_that_can_not_be_is_refused(
    service: Service, schedule: Schedule, job_id: str, members: dict[str, Any], name: str
) -> None:
    check_error(schedule(members), 400, name)
    assert get_job(service, job_id)["status"] == "unknown"


def test_a_body_that_is_no_object_is_refused(service: Service, job_id: str) -> None:
    for body in ("[]", "no json", ""):
        response = service.request("PUT", f"/jobs/v2/{job_id}", data=body)
        check_error(response, 400, "DeserializationError")


@pytest.mark.parametrize("job_id", ["Upper", "under_score", "dot.ted", "sp%20ace", "x" * 65])
def test_an_id_that_is_none_is_refused(service: Service, job_id: str) -> None:
    body = method_job(queryCondition="*")
    check_error(service.request("PUT", f"/jobs/v2/{job_id}", json=body), 400, "ArgumentInvalid")


def test_an_id_is_taken_once(service: Service, schedule: Schedule, job_id: str) -> None:
    assert schedule(twin_job()).status_code == 200
    when_over(service, job_id)
    text = check_error(schedule(method_job()), 409, "JobAlreadyExists")
    assert job_id in text


def test_a_condition_that_is_none_is_accepted_and_fails_the_job(
    service: Service, schedule: Schedule, job_id: str
) -> None:
    assert schedule(twin_job(queryCondition="SELECT * FROM devices")).status_code == 200
    job = when_over(service, job_id)
    assert job["status"] == "failed"
    assert job["failureReason"]
    assert "deviceJobStatistics" not in job
    assert device_jobs(service, job_id) == []


def test_a_job_that_is_not_known_is_unknown_and_can_not_be_cancelled(
    service: Service, job_id: str
) -> None:
    job = get_job(service, job_id)
    assert job == {"jobId": job_id, "type": "unknown", "status": "unknown"}
    check_error(service.request("POST", f"/jobs/v2/{job_id}/cancel"), 404, "JobNotFound")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("PUT", "/jobs/v2/j"),
        ("GET", "/jobs/v2/j"),
        ("POST", "/jobs/v2/j/cancel"),
        ("GET", "/jobs/v2/query"),
    ],
)
def test_jobs_are_a_services_and_not_the_registrys(
    emulator: Emulator, verb: str, path: str
) -> None:
    allowed = {}
    for policy in ("service", "registryReadWrite", "device"):
        client = Service(emulator, policy)
        response = client.request(verb, path)
        allowed[policy] = response.headers.get("iothub-errorcode") != "IotHubUnauthorizedAccess"
        client.close()
    assert allowed == {"service": True, "registryReadWrite": False, "device": False}


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

    response = service.request("POST", f"/jobs/v2/{job_id}/cancel")
    assert response.status_code == 200
    assert response.json() == get_job(service, job_id)
    assert response.json()["status"] == "cancelled"
    again = service.request("POST", f"/jobs/v2/{job_id}/cancel")
    check_error(again, 405, "OperationNotAllowedInCurrentState")


def test_the_list_of_jobs_is_an_array_in_pages(
    service: Service, schedule: Schedule, job_id: str
) -> None:
    ids = [f"{job_id}-{number}" for number in range(3)]
    for each in ids:
        assert schedule(method_job(startTime=in_an_hour()), job_id=each).status_code == 200

    def page(**headers: str) -> requests.Response:
        path = "/jobs/v2/query?jobType=scheduleDeviceMethod&jobStatus=scheduled"
        api_version = "&api-version=2021-04-12"
        response = service.request("GET", path + api_version, params={}, headers={**headers})
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
    check_error(other, 400, "ArgumentInvalid")


@pytest.mark.parametrize("query", ["jobType=reboot", "jobStatus=done"])
def test_a_list_of_what_no_job_has_is_refused(service: Service, query: str) -> None:
    response = service.request("GET", f"/jobs/v2/query?{query}&api-version=2021-04-12", params={})
    check_error(response, 400, "ArgumentInvalid")


# --- a hub of its own


def test_the_smallest_hub_has_one_slot_and_ends_with_its_job(tmp_path: Path) -> None:
    settings = Settings(
        host=free_loopback_address(),
        https_port=0,
        cert_dir=tmp_path,
        throttle=("S1", "jobs=100000/s"),
    )
    with Emulator(settings) as emulator, ExitStack() as stack:
        trust = {"REQUESTS_CA_BUNDLE": str(emulator.ca_file)}
        stack.enter_context(mock.patch.dict(os.environ, trust))
        service = Service(emulator)
        stack.callback(service.close)
        put_device(service, "d")
        later = method_job(queryCondition="*", startTime=in_an_hour())
        assert service.request("PUT", "/jobs/v2/one", json=later).status_code == 200
        now = method_job(queryCondition="*", cloudToDeviceMethod=WAITING)
        refused = service.request("PUT", "/jobs/v2/two", json=now)
        check_error(refused, 429, "ThrottlingMaxActiveJobCountExceeded")
        assert service.request("POST", "/jobs/v2/one/cancel").status_code == 200
        assert service.request("PUT", "/jobs/v2/two", json=now).status_code == 200
        while get_job(service, "two")["status"] != "running":
            pass
        began = time.monotonic()
    # The job waits for its device for five minutes; the hub doesn't.
    assert time.monotonic() - began < PATIENCE
