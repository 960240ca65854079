"""Jobs and configurations on the page, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from emulator import Emulator
from tests.http.support import MethodDevice, echo, new_id
from tests.support import Device, Service
from tests.web.support import at, check


def open_form(page: Any, emulator: Emulator, place: str, name: str) -> Any:
    """Open the form of a section."""
    at(page, emulator, place)
    page.get_by_role("button", name=name).click()
    return page.get_by_role("dialog", name=name)


def refused(form: Any, label: str, text: str, error: str) -> None:
    """Fill a field, and wait for what the form says about it."""
    form.get_by_label(label, exact=True).fill(text)
    form.get_by_role("button", name="Create").click()
    form.get_by_role("alert").filter(has_text=error).wait_for()


def test_a_job_writes_twins_and_shows_its_devices(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    job_id = new_id("job")
    form = open_form(home, emulator, "#/jobs", "New job")
    form.get_by_text("Start in, in s").wait_for()
    refused(form, "Job id", "", "The job id is missing.")
    refused(form, "Job id", "a_b", "Invalid job id 'a_b'")
    form.get_by_label("Job id").fill(job_id)
    refused(form, "Changes of the twins", "{,}", "The changes are not JSON: line 1, column 2")
    refused(form, "Changes of the twins", '{"reported": {}}', "reported")
    form.get_by_label("Changes of the twins").fill('{"tags": {"floor": 2}}')
    refused(form, "Start in, in s", "1.5", "Start in is not a number of seconds: 1.5")
    refused(form, "Start in, in s", "-1", "Start in is not a number of seconds: -1")
    refused(form, "Start in, in s", "999999999", "hours ahead")
    form.get_by_label("Start in, in s").fill("0")
    refused(form, "Time limit, in s", "0.5", "The time limit is not a number of seconds: 0.5")
    form.get_by_label("Time limit, in s").fill("60")
    form.get_by_label("Devices").fill(f"deviceId = '{device.id}'")
    form.get_by_role("button", name="Create").click()
    home.get_by_role("heading", name=job_id).wait_for()
    row = home.locator("tr").filter(has=home.get_by_role("link", name=device.id))
    row.get_by_text("completed").wait_for()
    home.get_by_text("1 of 1 succeeded").wait_for()
    assert service.request("GET", f"/twins/{device.id}").json()["tags"] == {"floor": 2}
    home.get_by_role("main").get_by_role("link", name="Jobs").click()
    home.get_by_role("link", name=job_id).wait_for()


def test_a_job_invokes_a_method_and_shows_the_answer(
    home: Any, emulator: Emulator, device: Device
) -> None:
    job_id = new_id("job")
    form = open_form(home, emulator, "#/jobs", "New job")
    form.get_by_label("Job id").fill(job_id)
    form.get_by_label("What it does").select_option("Invoke a direct method")
    form.get_by_label("Devices").fill(f"deviceId = '{device.id}'")
    refused(form, "Payload", "", "The name of the method is missing.")
    form.get_by_label("Method", exact=True).fill("blink")
    form.get_by_label("Payload").fill('{"times": 3}')
    with MethodDevice(emulator, device, echo):
        form.get_by_role("button", name="Create").click()
        row = home.locator("tr").filter(has=home.get_by_role("link", name=device.id))
        row.get_by_text('status 200 {"times":3}').wait_for()


def test_a_job_fails_with_its_reason(home: Any, emulator: Emulator, device: Device) -> None:
    job_id = new_id("job")
    form = open_form(home, emulator, "#/jobs", "New job")
    form.get_by_label("Job id").fill(job_id)
    form.get_by_label("Devices").fill("tags.floor = = 2")
    form.get_by_role("button", name="Create").click()
    home.get_by_role("heading", name=job_id).wait_for()
    home.locator(".title").get_by_text("failed").wait_for()
    home.get_by_text("Failed because").wait_for()
    at(home, emulator, "#/jobs/unknown-job")
    home.get_by_text("The job unknown-job is not on this hub.").wait_for()


def test_a_job_that_waits_is_cancelled(home: Any, emulator: Emulator) -> None:
    job_id = new_id("job")
    form = open_form(home, emulator, "#/jobs", "New job")
    form.get_by_label("Job id").fill(job_id)
    form.get_by_label("Start in, in s").fill("3600")
    form.get_by_role("button", name="Create").click()
    home.get_by_text("The job has no device yet.").wait_for()
    home.get_by_role("button", name=f"Cancel {job_id}").click()
    home.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    home.locator(".title").get_by_text("cancelled").wait_for()
    assert home.get_by_role("button", name=f"Cancel {job_id}").count() == 0


def test_a_list_that_is_read_again_keeps_the_focus(
    home: Any, emulator: Emulator, service: Service
) -> None:
    first, second = new_id("job"), new_id("job")
    body = {"type": "scheduleUpdateTwin", "queryCondition": "deviceId = 'none'"}
    patch = {"tags": {"a": 1}, "etag": "*"}
    for job_id in (first, second):
        job = {**body, "jobId": job_id, "updateTwin": patch}
        assert service.request("PUT", f"/jobs/v2/{job_id}", json=job).ok
        if job_id == first:
            at(home, emulator, "#/jobs")
            home.get_by_role("link", name=first).focus()
    home.get_by_role("link", name=second).wait_for()
    assert home.evaluate("document.activeElement.innerText") == first


def test_the_newest_jobs_are_shown(home: Any, emulator: Emulator, service: Service) -> None:
    start = new_id("job")
    body = {
        "type": "scheduleUpdateTwin",
        "queryCondition": "deviceId = 'none'",
        "updateTwin": {"tags": {"a": 1}, "etag": "*"},
        "startTime": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
    }
    for number in range(101):
        job_id = f"{start}-{number:03}"
        assert service.request("PUT", f"/jobs/v2/{job_id}", json={**body, "jobId": job_id}).ok
        service.request("POST", f"/jobs/v2/{job_id}/cancel")  # few can be active
    at(home, emulator, "#/jobs")
    home.get_by_role("link", name=f"{start}-100").wait_for()
    ids = home.locator("table a.id").all_inner_texts()
    assert ids == [f"{start}-{number:03}" for number in range(100, 0, -1)]
    home.get_by_text(re.compile(r"^\d+ older jobs? not shown\.$")).wait_for()


def test_a_configuration_is_created_changed_and_deleted(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    configuration_id = new_id("chillers")
    service.request("PATCH", f"/twins/{device.id}", json={"tags": {"name": device.id}})
    form = open_form(home, emulator, "#/configurations", "New configuration")
    refused(form, "Id", "", "The id is missing.")
    refused(form, "Id", "UPPER", "Invalid id 'UPPER'")
    form.get_by_label("Id", exact=True).fill(configuration_id)
    refused(form, "Content", "{", "The content is not JSON")
    refused(form, "Content", '{"a": 1}', "content")
    form.get_by_label("Content").fill('{"deviceContent": {"properties.desired.chiller": 1}}')
    refused(form, "Target condition", "tags.name = ", "Target condition: line 1, column 13")
    form.get_by_label("Target condition").fill(f"tags.name = '{device.id}'")
    refused(form, "Metrics", '{"on": "SELECT"}', "Metrics: on: line 1, column 7")
    query = f"SELECT deviceId FROM devices WHERE deviceId = '{device.id}'"
    form.get_by_label("Metrics").fill(json.dumps({"found": query}))
    form.get_by_label("Labels").fill('{"owner": "ann"}')
    form.get_by_role("button", name="Create").click()
    row = home.locator("tr", has_text=configuration_id)
    row.get_by_text("found: 1").wait_for()
    path = f"/configurations/{configuration_id}"
    assert service.request("GET", path).json()["labels"] == {"owner": "ann"}
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert twin["properties"]["desired"]["chiller"] == 1

    home.get_by_role("button", name=f"Edit {configuration_id}").click()
    form = home.get_by_role("dialog", name=f"Edit {configuration_id}")
    form.get_by_label("Priority").fill("-1")
    form.get_by_role("button", name="Save").click()
    form.get_by_role("alert").filter(has_text="priority").wait_for()
    form.get_by_label("Priority").fill("77")
    changed = {**service.request("GET", path).json(), "priority": 5}
    headers = {"If-Match": f'"{changed["etag"]}"'}
    assert service.request("PUT", path, json=changed, headers=headers).ok
    form.get_by_role("button", name="Save").click()
    form.get_by_text("The configuration was changed meanwhile.").wait_for()
    form.get_by_role("button", name="Cancel").click()
    home.get_by_role("button", name="Read again").click()
    row.get_by_text("5", exact=True).wait_for()
    home.get_by_role("button", name=f"Edit {configuration_id}").click()
    form.get_by_label("Priority").fill("77")
    form.get_by_role("button", name="Save").click()
    row.get_by_text("77", exact=True).wait_for()
    assert service.request("GET", path).json()["content"] == changed["content"]

    home.get_by_role("button", name=f"Delete {configuration_id}").click()
    home.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")
    assert service.request("GET", path).status_code == 404


def test_the_forms_fit_a_phone_and_can_be_used_by_everyone(
    new_page: Callable[..., Any], emulator: Emulator, axe: str
) -> None:
    page = new_page(bypass_csp=True)
    page.get_by_role("button", name="Use the well-known key").click()
    page.get_by_role("heading", name="Devices", exact=True).wait_for()
    form = open_form(page, emulator, "#/jobs", "New job")
    job_id = new_id("job")
    form.get_by_label("Job id").fill(job_id)
    check(page, axe, "a job for twins")
    form.get_by_label("What it does").select_option("Invoke a direct method")
    check(page, axe, "a job for methods")
    form.get_by_label("Method", exact=True).fill("blink")
    form.get_by_role("button", name="Create").click()
    page.get_by_role("heading", name=job_id).wait_for()
    check(page, axe, "a job")
    open_form(page, emulator, "#/configurations", "New configuration")
    check(page, axe, "a configuration")
