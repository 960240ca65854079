"""The list of devices: searched, in pages, and empty; and new devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulator import Emulator
from tests.http.support import MethodDevice, echo, new_id
from tests.messages import put_module
from tests.support import Device, Service, second_hub, wait_until
from tests.web.support import Visitor, at, check

SELECT = "SELECT deviceId FROM devices"


def create(service: Service, ids: list[str]) -> None:
    """Create devices."""
    items = [{"id": each, "importMode": "create"} for each in ids]
    assert service.request("POST", "/devices", json=items).json()["isSuccessful"]


# --- search


def test_devices_are_searched_and_come_in_pages(home: Any, service: Service) -> None:
    part = new_id("page")
    ids = [f"x-{part}-{number:02}" for number in range(60)]
    create(service, ids)
    put_module(service, ids[7], "camera")
    service.request("PATCH", f"/twins/{ids[9]}", json={"tags": {"floor": 2}})
    disabled = {"deviceId": ids[8], "status": "disabled"}
    service.request("PUT", f"/devices/{ids[8]}", json=disabled, headers={"If-Match": "*"})
    links = home.locator("table a.id")

    def finds(*found: str) -> None:
        wait_until(lambda: links.all_inner_texts() == [*found])

    home.get_by_label("Id has").fill(part.upper())
    finds(*ids[:25])
    home.get_by_text("1 to 25", exact=True).wait_for()
    pages = []
    for where in ("26 to 50", "51 to 60"):
        pages += links.all_inner_texts()
        home.get_by_role("button", name="Next").click()
        home.get_by_text(where, exact=True).wait_for()
    pages += links.all_inner_texts()
    assert sorted(pages) == ids
    assert home.get_by_role("button", name="Next").is_disabled()
    home.get_by_role("button", name="Previous").click()
    home.get_by_text("26 to 50", exact=True).wait_for()

    home.get_by_label("State").select_option("Disabled")
    finds(ids[8])
    home.get_by_text("disabled", exact=True).wait_for()
    home.get_by_label("State").select_option("Connected")
    home.get_by_text("No device is like this.").wait_for()
    home.get_by_label("State").select_option("All")
    home.get_by_text("By tags and properties").click()
    condition = home.get_by_label("Condition")
    for text in ("tags.floor = 2", "where tags.floor = 2 OR tags.floor = 2"):
        condition.fill(text)
        condition.press("Enter")
        finds(ids[9])
    condition.fill("tags.floor = = 2")
    condition.press("Enter")
    home.get_by_role("alert").filter(has_text="line 1, column").wait_for()
    condition.fill("")
    condition.press("Enter")
    finds(*ids[:25])
    home.get_by_label("Show").select_option("Modules")
    finds(f"{ids[7]}/camera")
    home.get_by_label("Id has").fill(f"{part}-07/CAM")
    finds(f"{ids[7]}/camera")
    home.get_by_label("Id has").fill("it's \\ no 'id'")
    home.get_by_text("No module is like this.").wait_for()
    gone = [{"id": each, "importMode": "delete"} for each in ids]
    service.request("POST", "/devices", json=gone)


def test_one_search_at_a_time_is_sent(home: Any, service: Service) -> None:
    name = new_id("typed")
    create(service, [name])
    running: set[object] = set()
    most = []

    def count(request: Any, change: Callable[[object], None]) -> None:
        if request.url.split("?")[0].endswith("/_page/search"):
            change(request)
            most.append(len(running))

    home.on("request", lambda request: count(request, running.add))
    # The search with which the page began can end only now.
    home.on("requestfinished", lambda request: count(request, running.discard))
    slow = {"offline": False, "latency": 700, "downloadThroughput": -1, "uploadThroughput": -1}
    session = home.context.new_cdp_session(home)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", slow)
    field = home.get_by_label("Id has")
    field.fill(name[:-3])
    field.press("End")
    field.press_sequentially(name[-3:], delay=350)  # longer than the page waits for a key
    wait_until(lambda: home.locator("table a.id").all_inner_texts() == [name] and not running)
    assert max(most) == 1


def test_a_search_continues_after_its_page(user: Visitor, service: Service) -> None:
    part = new_id("part")
    ids = [f"x-{part}-{number}" for number in range(3)]
    create(service, ids)
    found, token = [], ""
    for _ in ids:
        headers = {"x-ms-max-item-count": "1", "x-ms-continuation": token}
        body = {"query": SELECT, "id": part.upper()}
        answer = user.request("POST", "/_page/search", json=body, headers=headers)
        found += [row["deviceId"] for row in answer.json()]
        token = answer.headers.get("x-ms-continuation", "")
    assert (found, token) == (ids, "")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "The body has no query"),
        ({"query": SELECT, "part": "a"}, "part"),
        ({"query": SELECT, "id": 1}, "id is not"),
        ({"query": "SELECT", "id": "a"}, "the query ends too early"),
    ],
)
def test_a_wrong_search_says_why(user: Visitor, body: object, error: str) -> None:
    answer = user.request("POST", "/_page/search", json=body)
    assert answer.status_code == 400
    assert error in answer.json()["Message"]


def test_a_search_needs_the_right_of_a_query(visitor: Visitor, emulator: Emulator) -> None:
    body = {"query": SELECT}
    assert visitor.request("POST", "/_page/search", json=body).status_code == 401
    visitor.sign_in(key=emulator.policy_connection_string("registryRead"))
    assert visitor.request("POST", "/_page/search", json=body).status_code == 401
    visitor.sign_in(key=emulator.policy_connection_string("service"))
    assert visitor.request("POST", "/_page/search", json=body).status_code == 200


# --- what to do next


def test_an_empty_hub_says_what_to_do(
    new_page: Callable[..., Any], emulator: Emulator, axe: str
) -> None:
    with second_hub(emulator, devices=()) as hub:
        page = new_page(hub, bypass_csp=True)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Use the well-known key").click()
        page.get_by_role("heading", name="This hub has no device yet").wait_for()
        check(page, axe, "an empty hub")
        page.get_by_role("button", name="Copy the command to create a device").click()
        page.get_by_text("Command to create a device copied.").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == "python -m emulator device-identity create -d myDeviceId"
        page.get_by_role("button", name="Create the first device").click()
        form = page.get_by_role("dialog")
        check(page, axe, "the form of a device")
        form.get_by_label("Device id").fill("it's")
        form.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="It has never connected").wait_for()
        page.get_by_text("python -m emulator simulate -d 'it'\\''s'").wait_for()
        page.get_by_role("button", name="Copy the variable for a device").click()
        page.get_by_text("Variable for a device copied.").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        text = hub.device_connection_string("it's")
        assert copied == f"IOTHUB_DEVICE_CONNECTION_STRING='{text}'"
        check(page, axe, "a device that has never connected")
        device = Device.of(text)
        with MethodDevice(hub, device, echo):
            page.get_by_role("heading", name="It has never connected").wait_for(state="hidden")


def test_a_device_with_a_certificate_is_created(
    home: Any, emulator: Emulator, service: Service
) -> None:
    name, digits = new_id("camera"), "AB" * 20
    home.get_by_role("button", name="New device").click()
    form = home.get_by_role("dialog", name="New device")
    form.get_by_label("Device id").fill(name)
    form.get_by_label("Authentication").select_option("X.509 thumbprint")
    for text, error in (("", "The thumbprint is missing."), ("12", "thumbprint")):
        form.get_by_label("Thumbprint").fill(text)
        form.get_by_role("button", name="Create").click()
        form.get_by_role("alert").filter(has_text=error).wait_for()
    form.get_by_label("Thumbprint").fill(":".join(["ab"] * 20))
    form.get_by_label("An IoT Edge device").check()
    form.get_by_role("button", name="Create").click()
    home.get_by_role("heading", name=name).wait_for()
    identity = service.request("GET", f"/devices/{name}").json()
    assert identity["authentication"]["x509Thumbprint"]["primaryThumbprint"].upper() == digits
    assert identity["capabilities"]["iotEdge"]
    home.context.grant_permissions(["clipboard-read", "clipboard-write"])
    home.get_by_role("button", name="Copy connection string").click()
    home.get_by_text("Connection string copied.").wait_for()
    copied = home.evaluate("navigator.clipboard.readText()")
    assert copied == f"HostName={emulator.host_name};DeviceId={name};x509=true"
    at(home, emulator, "#/")
