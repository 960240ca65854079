"""The page in a real browser: what a person sees and does."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, MethodResponse

from emulator import Emulator
from emulator.http.web import live
from tests.http.support import MethodDevice, echo, new_id, registered
from tests.messages import put_module
from tests.support import PATIENCE, Device, Service, second_hub, send_events
from tests.web.support import Visitor, at, check, text_of

# What a device can send to break out of a text: none of it may become markup, or stay unseen.
EVIL = "<img src=x onerror=\"alert('x')\"><script>alert(1)</script>\x1b[31m\u202edesrever\u200b"
SHOWN = "<script>alert(1)</script>\u27e8ESC\u27e9[31m\u27e8U+202E\u27e9desrever\u27e8U+200B\u27e9"

SECTIONS = ("#/", "#/hub", "#/query", "#/jobs", "#/configurations", "#/provisioning")


@contextmanager
def rebooting(device: Device, seconds: float) -> Iterator[IoTHubDeviceClient]:
    """The device of the tutorial, on the unmodified SDK: its reboot takes so long."""
    client = IoTHubDeviceClient.create_from_connection_string(device.connection_string)

    def reboot(request: Any) -> None:
        time.sleep(seconds)
        client.patch_twin_reported_properties({"rebootTime": "2026-11-26 09:03:17"})
        answer = {"Response": "This is the response from the device"}
        client.send_method_response(MethodResponse(request.request_id, 200, answer))

    client.on_method_request_received = reboot
    try:
        client.connect()
        yield client
    finally:
        client.shutdown()


# --- sign-in


def test_one_click_signs_in_and_sign_out_ends_it(home: Any) -> None:
    assert home.locator(".policy").inner_text() == "iothubowner"
    home.get_by_text("Live", exact=True).wait_for()
    home.get_by_role("button", name="Sign out").click()
    home.get_by_role("heading", name="Sign in").wait_for()
    home.reload()
    home.get_by_role("heading", name="Sign in").wait_for()


def test_a_key_signs_in_and_a_wrong_one_says_why(page: Any, emulator: Emulator) -> None:
    page.get_by_text("Use another key").click()
    key = page.get_by_label("Key or connection string")
    for text, error in (
        ("", "The key is missing. Paste a key or a connection string"),
        ("d3Jvbmc=", "Wrong key for iothubowner"),
        ("HostName=a;DeviceId=b;SharedAccessKey=c", "the connection string of a device"),
    ):
        key.fill(text)
        key.press("Enter")
        page.get_by_role("alert").filter(has_text=error).wait_for()
    key.fill(emulator.policy_connection_string("service"))
    page.get_by_role("button", name="Sign in").click()
    page.locator(".policy", has_text="service").wait_for()


def test_the_keyboard_is_enough(page: Any) -> None:
    page.get_by_role("button", name="Use the well-known key").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Devices", exact=True).wait_for()
    for name in ("Sign out", "Provisioning", "Configurations", "Jobs", "Query", "Hub"):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement.innerText") == name
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Hub", exact=True).wait_for()


def test_a_session_that_has_ended_asks_for_the_key_again(home: Any) -> None:
    home.context.clear_cookies()
    # The next request of the page meets it: that of a list, of the live stream, or this one.
    home.evaluate("location.hash = '#/jobs'")
    home.get_by_role("heading", name="Sign in").wait_for()


def test_a_policy_without_a_right_gets_a_clear_error(page: Any, emulator: Emulator) -> None:
    page.get_by_text("Use another key").click()
    key = page.get_by_label("Key or connection string")
    key.fill(emulator.policy_connection_string("registryRead"))
    key.press("Enter")
    error = "The hub refused this: the policy of this session does not have the right"
    page.get_by_role("alert").filter(has_text=error).wait_for()


def test_a_policy_without_the_right_to_read_identities_sees_the_devices(
    page: Any, emulator: Emulator, device: Device
) -> None:
    page.get_by_text("Use another key").click()
    key = page.get_by_label("Key or connection string")
    key.fill(emulator.policy_connection_string("service"))
    key.press("Enter")
    page.get_by_label("Id has").fill(device.id)
    page.get_by_role("link", name=device.id).first.wait_for()
    assert page.get_by_role("alert").count() == 0
    assert page.get_by_role("link", name="Provisioning").count() == 0


# --- the tutorial


def test_a_person_sees_the_reboot_of_the_tutorial(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    at(home, emulator, f"#/device/{device.id}")
    methods, twin = text_of(home, "Direct methods"), text_of(home, "Twin")
    methods.get_by_text("No method was called").wait_for()
    with rebooting(device, 1.5):
        home.get_by_text("Connected by MQTT").wait_for()
        method = {"methodName": "rebootDevice", "payload": {"method_number": "42"}}
        path = f"/twins/{device.id}/methods"
        call = threading.Thread(
            target=service.request, args=("POST", path), kwargs={"json": method}
        )
        call.start()
        methods.get_by_text(re.compile(r"^waiting for the answer: 1\.\d s$")).wait_for()
        methods.get_by_text(re.compile(r"^status 200 after 1\.\d s$")).wait_for()
        methods.get_by_text("This is the response from the device").wait_for()
        twin.get_by_text('reported.rebootTime = "2026-11-26 09:03:17"').wait_for()
        assert twin.locator("mark").inner_text() == '"rebootTime": "2026-11-26 09:03:17"'
        call.join(PATIENCE)
    home.get_by_text("Disconnected", exact=True).wait_for()


def test_the_first_page_tells_the_reboot_as_it_happens(
    home: Any, service: Service, emulator: Emulator, device: Device
) -> None:
    now = text_of(home, "What happens now")
    with MethodDevice(emulator, device, echo):
        now.get_by_text(f"{device.id} connected").wait_for()
        service.request("POST", f"/twins/{device.id}/methods", json={"methodName": "blink"})
        now.get_by_text(f"blink was called on {device.id}").wait_for()
        now.get_by_text(f"{device.id} answered blink: status 200").wait_for()
    now.get_by_text(f"{device.id} disconnected").wait_for()


def test_a_method_is_invoked_and_answered(home: Any, emulator: Emulator, device: Device) -> None:
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_text("Invoke a method", exact=True).click()
    form = home.get_by_role("form", name="Invoke a method")
    invoke = form.get_by_role("button", name="Invoke")
    invoke.click()
    form.get_by_text("The name of the method is missing.").wait_for()
    form.get_by_label("Method", exact=True).fill("blink")
    form.get_by_label("Payload").fill("{1}")
    invoke.click()
    form.get_by_text("The payload is not JSON").wait_for()
    form.get_by_label("Payload").fill('{"times": 3}')
    invoke.click()
    form.get_by_text("the requested device isn't online").wait_for()
    with MethodDevice(emulator, device, echo) as connected:
        home.get_by_text("Connected by MQTT").wait_for()
        invoke.click()
        assert json.loads(connected.next_call().payload) == {"times": 3}
        form.get_by_text("The device answered with status 200").wait_for()


def test_messages_come_and_go(home: Any, emulator: Emulator, device: Device) -> None:
    at(home, emulator, f"#/device/{device.id}")
    received: list[Any] = []
    with rebooting(device, 0) as client:
        client.on_message_received = received.append
        home.get_by_text("Connected by MQTT").wait_for()
        client.send_message('{"temperature": 21.5}')
        text_of(home, "What happens").get_by_text('{"temperature": 21.5}').wait_for()
        home.get_by_text("Send a message to the device").click()
        form = home.get_by_role("form", name="Send a message")
        form.get_by_label("Body").fill("hello")
        form.get_by_label("Properties").fill("no value")
        form.get_by_role("button", name="Send").click()
        form.get_by_text("The property 'no value' has no value. Use name=value.").wait_for()
        form.get_by_label("Properties").fill("colour=red")
        form.get_by_role("button", name="Send").click()
        text_of(home, "What happens").get_by_text("ended: Success").wait_for()
    [message] = received
    assert (message.data, message.custom_properties["colour"]) == (b"hello", "red")


# --- twins


def test_desired_properties_and_tags_are_edited(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    desired = {"keep": 1.5, "gone": {"a": 1}}
    service.request("PATCH", f"/twins/{device.id}", json={"properties": {"desired": desired}})
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_role("button", name="Edit desired properties").click()
    dialog = home.get_by_role("dialog", name="Edit desired properties")
    text = dialog.get_by_label("JSON")
    assert json.loads(text.input_value()) == desired
    save = dialog.get_by_role("button", name="Save")
    for content, error in (
        ('{\n  "a": }', "This is not JSON: line 2, column 8: expected a value, found '}'"),
        ("[1]", "Use a JSON object"),
        (json.dumps(desired), "Nothing is changed."),
        ('{"a.b": 1}', "a.b"),
    ):
        text.fill(content)
        save.click()
        dialog.get_by_role("alert").filter(has_text=error).wait_for()
    text.fill('{"keep": 1.5, "new": [1, 2]}')
    save.click()
    dialog.wait_for(state="detached")
    home.get_by_text('desired.gone removed, was {"a":1}', exact=True).wait_for()
    home.get_by_text("desired.new = [1,2]", exact=True).wait_for()
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert {"keep": 1.5, "new": [1, 2]}.items() <= twin["properties"]["desired"].items()

    home.get_by_role("button", name="Edit tags").click()
    dialog = home.get_by_role("dialog", name="Edit tags")
    dialog.get_by_label("JSON").fill('{"room": "kitchen"}')
    service.request("PATCH", f"/twins/{device.id}", json={"tags": {"floor": 1}})
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text("The twin was changed meanwhile.").wait_for()
    dialog.get_by_role("button", name="Cancel").click()


# --- devices and modules


def test_a_device_and_a_module_live_from_creation_to_deletion(
    home: Any, emulator: Emulator, service: Service
) -> None:
    home.context.grant_permissions(["clipboard-read", "clipboard-write"])
    device_id = new_id("it's 100% (new)").replace(" ", "-")
    home.get_by_role("button", name="New device").click()
    dialog = home.get_by_role("dialog", name="New device")
    for text, error in (("", "The device id is missing."), ("a b", "Invalid id 'a b'")):
        dialog.get_by_label("Device id").fill(text)
        dialog.get_by_role("button", name="Create").click()
        dialog.get_by_role("alert").filter(has_text=error).wait_for()
    dialog.get_by_label("Device id").fill(device_id)
    dialog.get_by_role("button", name="Create").click()
    home.get_by_role("heading", name=device_id).wait_for()

    home.get_by_role("button", name="Copy connection string").click()
    home.get_by_text("Connection string copied.").wait_for()
    copied = home.evaluate("navigator.clipboard.readText()")
    assert copied == emulator.device_connection_string(device_id)

    home.get_by_role("button", name="Disable").click()
    home.get_by_role("button", name="Enable").wait_for()
    path = f"/devices/{device_id.replace('%', '%25')}"
    assert service.request("GET", path).json()["status"] == "disabled"

    home.get_by_role("button", name="New module").click()
    dialog = home.get_by_role("dialog", name="New module")
    dialog.get_by_label("Module id").fill("camera")
    dialog.get_by_role("button", name="Create").click()
    dialog.get_by_text("or the device is disabled").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    home.get_by_role("button", name="Enable").click()
    home.get_by_role("button", name="Disable").wait_for()
    home.get_by_role("button", name="New module").click()
    dialog = home.get_by_role("dialog", name="New module")
    dialog.get_by_label("Module id").fill("camera")
    dialog.get_by_role("button", name="Create").click()
    home.get_by_role("link", name=f"{device_id}/camera").click()
    home.get_by_role("heading", name="camera", exact=True).wait_for()
    home.go_back()

    home.get_by_role("button", name="Delete", exact=True).click()
    home.get_by_role("dialog").get_by_role("button", name="Delete").click()
    home.get_by_role("heading", name="Devices", exact=True).wait_for()
    assert service.request("GET", path).status_code == 404


# --- the hub


def test_the_hub_shows_what_it_refused_and_filters_what_happens(
    home: Any, emulator: Emulator, device: Device
) -> None:
    at(home, emulator, "#/hub")
    home.get_by_text("Live", exact=True).wait_for()
    visitor = Visitor(emulator)
    visitor.request("GET", f"/devices/{device.id}")
    visitor.http.close()
    reason = f"Refused GET '/devices/{device.id}': no SAS token"
    text_of(home, "Refusals").get_by_text(reason).wait_for()
    send_events(emulator, device, "one", "two")
    events = text_of(home, "What happens").locator("li:visible")
    events.filter(has_text=f"{device.id} sent two").wait_for()
    home.get_by_label("Filter by text").fill(device.id)
    assert all(device.id in each for each in events.all_inner_texts())
    home.get_by_label("Messages").uncheck()
    texts = events.all_inner_texts()
    assert any("Refused" in each for each in texts)
    assert not any(" sent " in each for each in texts)
    home.get_by_text(re.compile(r"^\d+ calls per second$")).wait_for()
    home.locator("polyline.messages[points*=',']").wait_for(state="attached")


def test_a_query_has_a_table_and_an_error_a_reason(
    home: Any, emulator: Emulator, device: Device
) -> None:
    at(home, emulator, "#/query")
    text = home.get_by_role("textbox", name="Query")
    text.fill(f"SELECT deviceId, status FROM devices WHERE deviceId = '{device.id}'")
    text.press("Control+Enter")
    home.get_by_text("1 row", exact=True).wait_for()
    cells = home.locator("th, td").all_inner_texts()
    assert cells == ["deviceId", "status", device.id, "enabled"]
    text.fill("SELECT FROM")
    home.get_by_role("button", name="Run").click()
    home.get_by_role("alert").filter(has_text="line 1, column 8").wait_for()


def test_jobs_and_configurations_are_listed(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    job_id, configuration_id = new_id("job"), new_id("configuration")
    job = {
        "jobId": job_id,
        "type": "scheduleUpdateTwin",
        "queryCondition": f"deviceId = '{device.id}'",
        "updateTwin": {"tags": {"a": 1}, "etag": "*"},
        "startTime": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        "maxExecutionTimeInSeconds": 60,
    }
    at(home, emulator, "#/jobs")
    assert service.request("PUT", f"/jobs/v2/{job_id}", json=job).ok
    home.get_by_role("button", name="Read again").click()
    home.get_by_role("button", name=f"Cancel {job_id}").click()
    home.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    home.locator("tr", has_text=job_id).get_by_text("cancelled").wait_for()
    configuration = {
        "id": configuration_id,
        "content": {"deviceContent": {"properties.desired.a": 1}},
        "targetCondition": f"deviceId = '{device.id}'",
        "priority": 3,
    }
    path = f"/configurations/{configuration_id}"
    assert service.request("PUT", path, json=configuration).ok
    at(home, emulator, "#/configurations")
    home.get_by_role("button", name=f"Details of {configuration_id}").click()
    home.get_by_role("dialog").get_by_text("properties.desired.a").wait_for()
    home.get_by_role("dialog").get_by_role("button", name="Close").click()
    home.get_by_role("button", name=f"Delete {configuration_id}").click()
    home.get_by_role("dialog").get_by_role("button", name="Delete").click()
    home.locator("tr", has_text=configuration_id).wait_for(state="detached")
    assert service.request("GET", path).status_code == 404


def test_a_fault_is_turned_on_and_off(home: Any, emulator: Emulator, device: Device) -> None:
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_text("Faults", exact=True).click()
    home.get_by_text("No fault is on.").wait_for()
    form = home.get_by_role("form", name="Turn a fault on")
    form.get_by_label("Kind").select_option("twin-status")
    form.get_by_label("Details").fill('{"status": 429,}')
    form.get_by_role("button", name="Turn on").click()
    form.get_by_text("The details are not JSON: line 1, column 16").wait_for()
    form.get_by_label("Details").fill('{"status": 1}')
    form.get_by_role("button", name="Turn on").click()
    form.get_by_role("alert").filter(has_text="status").wait_for()
    form.get_by_label("Details").fill('{"status": 429}')
    form.get_by_role("button", name="Turn on").click()
    off = home.get_by_role("button", name="Turn off twin-status")
    off.wait_for()
    events = text_of(home, "What happens")
    events.get_by_text(f"The fault twin-status is on for {device.id}").wait_for()
    [fault] = [each for each in emulator.faults.list() if each.get("device") == device.id]
    assert (fault["kind"], fault["status"]) == ("twin-status", 429)
    off.click()
    home.get_by_text("No fault is on.").wait_for()
    events.get_by_text(f"The fault twin-status is off for {device.id}").wait_for()


def test_each_kind_of_fault_can_be_turned_on_as_it_is_proposed(
    home: Any, emulator: Emulator, device: Device
) -> None:
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_text("Faults", exact=True).click()
    form = home.get_by_role("form", name="Turn a fault on")
    kinds = form.locator("option").all_inner_texts()
    for kind in kinds:
        form.get_by_label("Kind").select_option(kind)
        form.get_by_role("button", name="Turn on").click()
        home.locator("#status").get_by_text(f"The fault {kind} is on.").wait_for()
    assert len(kinds) > 10
    emulator.faults.clear()


def test_a_module_has_a_page_as_its_device_has(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    module = put_module(service, device.id, "camera")
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_role("link", name=f"{device.id}/camera").click()
    home.get_by_role("heading", name="camera", exact=True).wait_for()
    home.get_by_text("Live", exact=True).wait_for()
    home.get_by_role("button", name="Edit desired properties").click()
    home.get_by_role("dialog").get_by_label("JSON").fill('{"zoom": 2}')
    home.get_by_role("dialog").get_by_role("button", name="Save").click()
    text_of(home, "Twin").get_by_text("desired.zoom = 2").wait_for()
    start = device.connection_string.partition(";SharedAccessKey=")[0]
    text = f"{start};ModuleId=camera;SharedAccessKey={module.key}"
    client = IoTHubModuleClient.create_from_connection_string(text)

    def answer(request: Any) -> None:
        client.send_method_response(MethodResponse(request.request_id, 200, None))

    client.on_method_request_received = answer
    try:
        client.connect()
        home.get_by_text("Connected by MQTT").wait_for()
        home.get_by_text("Invoke a method", exact=True).click()
        home.get_by_label("Method", exact=True).fill("blink")
        home.get_by_role("button", name="Invoke").click()
        home.get_by_text("The device answered with status 200").wait_for()
    finally:
        client.shutdown()
    path = f"/twins/{device.id}/modules/camera"
    desired = {"properties": {"desired": {"zoom": 3}}}
    service.request("PATCH", path, json=desired)
    text_of(home, "Twin").get_by_text("desired.zoom: 2 \u2192 3").wait_for()


def test_the_clock_is_advanced_and_the_hub_reset(
    new_page: Callable[..., Any], emulator: Emulator
) -> None:
    with second_hub(emulator, devices=("first",)) as hub:
        page = new_page(hub)
        page.get_by_role("button", name="Use the well-known key").click()
        page.get_by_role("link", name="first").first.wait_for()
        at(page, hub, "#/hub")
        advance = page.get_by_role("form", name="Advance the clock")
        for text, error in (("soon", "Invalid advance"), ("", "Invalid advance")):
            advance.get_by_label("Advance by").fill(text)
            advance.get_by_role("button", name="Advance").click()
            advance.get_by_role("alert").filter(has_text=error).wait_for()
        advance.get_by_label("Advance by").fill("P1D")
        advance.get_by_role("button", name="Advance").click()
        page.get_by_text("86,400 s ahead of this machine").wait_for()
        hub.register_device("second")
        page.get_by_text("second was created").wait_for()
        page.get_by_role("button", name="Reset the hub").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Reset the hub").click()
        page.get_by_role("dialog").get_by_role("button", name="Reset").click()
        page.get_by_role("heading", name="Devices", exact=True).wait_for()
        page.get_by_text("1 device", exact=True).wait_for()
        page.get_by_text("Live", exact=True).wait_for()
        hub.register_device("third")
        page.get_by_text("third was created").wait_for()


# --- safety


def test_what_devices_send_is_never_markup(
    home: Any, emulator: Emulator, service: Service, device: Device
) -> None:
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_text("Live", exact=True).wait_for()
    with MethodDevice(emulator, device, lambda _: (200, json.dumps(EVIL).encode())) as connected:
        connected.report(json.dumps({"<b>name</b>": EVIL}))
        service.request("POST", f"/twins/{device.id}/methods", json={"methodName": "<i>m</i>"})
        send_events(emulator, device, EVIL)
        home.get_by_text(f"sent {EVIL[:20]}").wait_for()
        home.get_by_text("<i>m</i>").first.wait_for()
        at(home, emulator, "#/query")
        text = f"SELECT * FROM devices WHERE deviceId = '{device.id}'"
        home.get_by_role("textbox", name="Query").fill(text)
        home.get_by_role("button", name="Run").click()
        home.get_by_text("1 row", exact=True).wait_for()
        at(home, emulator, "#/")
        home.get_by_text(SHOWN).first.wait_for()
    elements = home.evaluate("[...document.querySelectorAll('main *')].map(each => each.tagName)")
    assert not {"IMG", "SCRIPT", "B", "I"} & set(elements)
    seen = home.locator("main").inner_text()
    assert not {"\x1b", "\u202e", "\u200b"} & set(seen)


def test_a_body_that_is_nested_deep_stays_small(
    home: Any, emulator: Emulator, device: Device
) -> None:
    deep = ["[" * 2000 + "]" * 2000, '{"a":' * 600 + "1" + "}" * 600]
    send_events(emulator, device, *deep)
    at(home, emulator, f"#/device/{device.id}")
    home.get_by_text(deep[0]).first.wait_for(state="attached")
    home.get_by_text(deep[1]).first.wait_for(state="attached")
    assert len(home.content()) < 100_000


def test_the_browser_refuses_a_script_that_is_not_a_file_of_the_page(
    home: Any, problems: list[str]
) -> None:
    # Through the page's own document: a tool of the browser would not ask the policy.
    ran = home.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.text = "window.ran = true"; document.head.append(script); } catch {}
            return window.ran === true;
        }"""
    )
    assert not ran
    assert "TrustedScript" in problems.pop()


def test_another_page_can_neither_frame_nor_command_the_hub(
    emulator: Emulator, home: Any, service: Service, device: Device
) -> None:
    own = f"https://{emulator.host_name}:{emulator.https_port}"
    # On another port of the same host: the browser sends the cookie with its requests.
    evil = f"https://{emulator.host_name}:1"
    # The browser itself asks before a page can reach this machine. Here the person has agreed.
    home.context.grant_permissions(["local-network-access"], origin=evil)
    other = home.context.new_page()
    other.route(
        f"{evil}/**",
        lambda route: route.fulfill(
            content_type="text/html", body=f"<h1>Other</h1><iframe src='{own}/'></iframe>"
        ),
    )
    other.goto(f"{evil}/")
    answers = other.evaluate(
        """async ([own, id]) => {
            const body = JSON.stringify({ body: "hello" });
            const messages = `${own}/_emulator/devices/${id}/messages`;
            const session = `${own}/_page/session`;
            const options = { credentials: "include" };
            const tries = [
                fetch(messages, { ...options, method: "POST", body, mode: "no-cors" }),
                fetch(messages, { ...options, method: "POST", body }),
                fetch(session, { ...options, method: "DELETE" }),
                fetch(`${own}/devices?api-version=2021-04-12`, options),
            ];
            const ends = await Promise.allSettled(tries);
            return ends.map((each) => each.status === "fulfilled" ? each.value.type : "refused");
        }""",
        [own, device.id],
    )
    assert answers == ["opaque", "refused", "refused", "refused"]
    assert other.frames[1].url.startswith("chrome-error:")
    other.close()
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert twin["cloudToDeviceMessageCount"] == 0
    reason = f"The Origin of the request is '{evil}'. Only {own} can do this"
    path = f"/_emulator/devices/{device.id}/messages"
    refused = f"Refused POST {path!r}: GenericForbidden: {reason}"
    assert refused in [each.text for each in emulator.hub.refusals.recent]
    home.get_by_role("link", name="Query").click()
    home.get_by_role("heading", name="Query").wait_for()


# --- hidden, narrow, dark, and without sight


def test_a_hidden_page_has_no_stream(
    home: Any, emulator: Emulator, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.get_by_text("Live", exact=True).wait_for()
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    home.evaluate(hide, True)
    home.get_by_text("Paused", exact=True).wait_for()
    send_events(emulator, device, "while it was hidden")
    assert home.get_by_text("while it was hidden").count() == 0
    home.evaluate(hide, False)
    home.get_by_text("while it was hidden").wait_for()


def test_a_hub_that_is_full_of_pages_says_so_and_is_tried_again(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_STREAMS", 0)
    home.reload()
    home.get_by_text("Not connected", exact=True).wait_for()
    monkeypatch.undo()
    home.get_by_text("Live", exact=True).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_part_fits_a_phone_and_can_be_read_by_everyone(
    new_page: Callable[..., Any],
    emulator: Emulator,
    service: Service,
    janitor: Service,
    axe: str,
    scheme: str,
) -> None:
    page = new_page(color_scheme=scheme, bypass_csp=True)
    with registered(emulator, janitor, new_id("a-very-long-name-" * 5)) as device:
        service.request("PATCH", f"/twins/{device.id}", json={"tags": {"long" * 20: "x" * 500}})
        send_events(emulator, device, "x" * 300, name="y" * 100)
        page.get_by_role("button", name="Use the well-known key").wait_for()
        check(page, axe, "sign-in")
        page.get_by_role("button", name="Use the well-known key").click()
        page.get_by_role("heading", name="Devices", exact=True).wait_for()
        for place in (*SECTIONS, f"#/device/{device.id}"):
            at(page, emulator, place)
            page.wait_for_load_state("domcontentloaded")
            if place == "#/query":
                page.get_by_role("button", name="Run").click()
                page.locator("table").wait_for()
            elif "device" in place:
                page.get_by_text("xxxx").first.wait_for()
                for summary in page.locator("main summary").all():
                    summary.click()
            check(page, axe, place)
        page.get_by_role("button", name="Edit tags").click()
        check(page, axe, "dialog")
    back = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", back)[:3])) / 3
    assert (light > 128) == (scheme == "light")
