"""The test kit: what a test can do with a running hub, blocking and in an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from emulator import Emulator
from emulator.hub.core import errors
from emulator.hub.hub import IotHub
from emulator.testing import Event, MethodAnswer, MethodCall, Upload, WaitTimeout
from emulator.testing.addresses import free_loopback_address
from tests.devices import connect_device
from tests.http.support import MethodDevice, echo, report_upload, silence
from tests.hub.uploads.shelf import Shelf
from tests.mqtt.raw import Wire, publish
from tests.support import Device, own, second_hub, trust, wait_until

COMMANDS = "devices/{}/messages/devicebound/#"
REPORT = "$iothub/twin/PATCH/properties/reported/?$rid=1"


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """An emulator without devices."""
    with second_hub(emulator) as hub:
        yield hub


@pytest.fixture(autouse=True)
def clean(hub: Emulator) -> Iterator[None]:
    yield
    for row in hub.query("SELECT * FROM devices"):
        hub.remove_device(row["deviceId"])


@pytest.fixture
def wire(hub: Emulator) -> Iterator[Wire]:
    """A connected device."""
    with connect(hub, "kitchen") as wire:
        yield wire


def connect(hub: Emulator, device_id: str, *filters: str) -> Wire:
    return connect_device(hub.register_device(device_id), hub.mqtt_port, trust(hub), *filters)


def telemetry(device_id: str, body: bytes, properties: str = "") -> bytes:
    return publish(f"devices/{device_id}/messages/events/{properties}", body)


# --- devices, modules and twins


def test_a_device_is_registered_with_its_twin(hub: Emulator) -> None:
    string = hub.register_device("kitchen", tags={"floor": 1}, desired={"target": {"heat": 20.5}})
    assert string == hub.device_connection_string("kitchen")
    twin = hub.twin("kitchen")
    assert (twin["tags"], own(twin["properties"]["desired"])) == (
        *({"floor": 1}, {"target": {"heat": 20.5}}),
    )
    twin = hub.update_twin("kitchen", tags={"floor": None}, desired={"target": {"cool": 18}})
    assert "tags" not in twin
    assert own(twin["properties"]["desired"]) == {"target": {"heat": 20.5, "cool": 18}}
    assert hub.twin("kitchen") == twin
    hub.remove_device("kitchen")
    with pytest.raises(errors.DeviceNotFound):
        hub.twin("kitchen")


def test_a_module_is_registered_with_its_twin(hub: Emulator) -> None:
    hub.register_device("kitchen")
    string = hub.register_module("kitchen", "camera", tags={"a": 1}, desired={"b": 2})
    assert ";DeviceId=kitchen;ModuleId=camera;SharedAccessKey=" in string
    assert hub.twin("kitchen", module="camera")["tags"] == {"a": 1}
    twin = hub.update_twin("kitchen", module="camera", desired={"b": 3})
    assert own(twin["properties"]["desired"]) == {"b": 3}
    hub.remove_module("kitchen", "camera")
    with pytest.raises(errors.ModuleNotFound):
        hub.remove_module("kitchen", "camera")


def test_a_device_can_have_a_certificate_or_be_disabled(hub: Emulator) -> None:
    prints = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "A" * 40}}
    string = hub.register_device("signed", authentication=prints)
    assert string.endswith("DeviceId=signed;x509=true")
    hub.register_device("off", enabled=False)
    hub.register_device("edge", edge=True)
    rows = hub.query("SELECT deviceId, status, capabilities FROM devices")
    assert [(each["status"], each["capabilities"]["iotEdge"]) for each in rows] == [
        *(("enabled", False), ("disabled", False), ("enabled", True)),
    ]


def test_a_wrong_argument_is_the_error_of_the_hub(hub: Emulator) -> None:
    with pytest.raises(errors.ArgumentInvalid, match="a/b"):
        hub.register_device("a/b")
    hub.register_device("kitchen")
    with pytest.raises(errors.DeviceAlreadyExists):
        hub.register_device("kitchen")
    with pytest.raises(errors.ArgumentInvalid):
        hub.query("SELECT")
    with pytest.raises(errors.DeviceNotFound):
        hub.send_command("cellar", "x")
    with pytest.raises(TypeError):
        hub.update_twin("kitchen", tags={"a": object()})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_removes_nothing(hub: Emulator, number: float) -> None:
    hub.register_device("kitchen", desired={"n": 1, "m": None})
    with pytest.raises(ValueError, match="NaN and infinite numbers are not JSON"):
        hub.update_twin("kitchen", desired={"n": [number]})
    assert hub.twin("kitchen")["properties"]["desired"]["n"] == 1


def test_values_of_the_caller_are_copied(hub: Emulator) -> None:
    tags = {"a": [1]}
    hub.register_device("kitchen", tags=tags)
    tags["a"].append(2)
    hub.twin("kitchen")["tags"]["a"].append(3)
    assert hub.twin("kitchen")["tags"] == {"a": [1]}


def test_a_query_returns_the_rows_of_all_pages(hub: Emulator) -> None:
    for number in range(101):
        hub.register_device(f"device-{number}")
    rows = hub.query("SELECT deviceId FROM devices")
    assert [each["deviceId"] for each in rows] == [f"device-{number}" for number in range(101)]


# --- messages


def test_an_event_has_its_parts(hub: Emulator, wire: Wire) -> None:
    before = len(hub.events())
    wire.send(telemetry("kitchen", b'{"n": 1.5}', "$.mid=m1&alert=yes"))
    event = hub.wait_for_event("kitchen")
    assert (event.device, event.module, event.source) == ("kitchen", None, "Telemetry")
    assert (event.body, event.content) == ({"n": 1.5}, b'{"n": 1.5}')
    assert (event.properties, event.system_properties) == ({"alert": "yes"}, {"message-id": "m1"})
    assert event.annotations["iothub-connection-device-id"] == "kitchen"
    assert hub.events("kitchen")[-1] == event
    assert len(hub.events()) == before + 1


@pytest.mark.parametrize(
    ("content", "content_type", "body"),
    [
        (b'{"a": 1}', "", {"a": 1}),
        (b"[1]", "", [1]),
        (b"21", "", "21"),
        (b"21", "application/json", 21),
        (b"21", "application/json;charset=utf-8", 21),
        (b"text", "application/json", "text"),
        ("ä".encode(), "", "ä"),
        (b"\xff", "", b"\xff"),
        (b"", "", ""),
    ],
)
def test_a_body_is_decoded(
    hub: Emulator, wire: Wire, content: bytes, content_type: str, body: Any
) -> None:
    last = (hub.events() or [None])[-1]
    kind = f"$.ct={quote(content_type, safe='')}" if content_type else ""
    wire.send(telemetry("kitchen", content, kind))
    event = hub.wait_for_event("kitchen", after=last)
    assert (event.content, event.body) == (content, body)


def test_a_notification_has_the_name_of_the_hub_in_connection_strings(emulator: Emulator) -> None:
    host = free_loopback_address()
    with second_hub(emulator, host=host, events=("deviceLifecycleEvents",)) as hub:
        hub.register_device("cellar")
        event = hub.wait_for_event("cellar")
    assert (hub.settings.host_name, event.properties["hubName"]) == (host, host)


def test_an_event_is_chosen_by_members_or_by_a_function(hub: Emulator, wire: Wire) -> None:
    for number in range(4):
        wire.send(telemetry("kitchen", b'{"n": %d, "even": %s}' % (number, b"true"), ""))
    second = hub.wait_for_event("kitchen", where={"n": 1})
    assert hub.wait_for_event("kitchen", after=second).body["n"] == 2
    assert hub.wait_for_event(where=lambda event: event.body["n"] > 2, after=second).body["n"] == 3
    with pytest.raises(ZeroDivisionError):
        hub.wait_for_event(where=lambda event: 1 / 0 > 1, after=second)
    with pytest.raises(errors.ArgumentInvalid, match=r"Invalid where: 'n=1'\. Use an object"):
        hub.wait_for_event(where="n=1")  # type: ignore[arg-type]


def test_a_command_reaches_the_device(hub: Emulator) -> None:
    with connect(hub, "kitchen", COMMANDS.format("kitchen")) as wire:
        hub.send_command("kitchen", "text", properties={"a": "b"}, message_id="m1", ack="full")
        hub.send_command("kitchen", {"n": 1})
        hub.send_command("kitchen", b"\xff")
        topic, body = wire.receive_publish()
        assert body == b"text"
        assert "a=b" in topic
        assert "m1" in topic
        assert [wire.receive_publish()[1] for _ in range(2)] == [b'{"n":1}', b"\xff"]


# --- connections, methods, reported properties


def test_waits_end_when_the_device_does_it(hub: Emulator) -> None:
    with ThreadPoolExecutor() as pool:
        waits = [
            pool.submit(hub.wait_until_connected, "kitchen", timeout=60),
            pool.submit(hub.wait_for_reported, "kitchen", {"a": {"b": 1}}, timeout=60),
        ]
        with connect(hub, "kitchen") as wire:
            wire.send(publish(REPORT, b'{"a": {"b": 1, "c": 2}}'))
            assert [each.result(60) for each in waits] == [None, {"a": {"b": 1, "c": 2}}]


def test_a_method_is_invoked_as_soon_as_the_device_listens(hub: Emulator) -> None:
    string = hub.register_device("kitchen")
    before = len(hub.calls)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(hub.invoke, "kitchen", "go", {"n": 1}, timeout=60)
        with MethodDevice(hub, Device.of(string), echo):
            hub.wait_until_listening("kitchen", "go", timeout=60)
            assert call.result(60) == MethodAnswer(200, {"n": 1})
    answer = MethodAnswer(200, {"n": 1})
    assert hub.calls[before:] == [MethodCall("kitchen", None, "go", {"n": 1}, answer, None)]


def test_a_method_that_fails_says_what_state_the_device_is_in(hub: Emulator) -> None:
    with connect(hub, "kitchen"):
        with pytest.raises(errors.DeviceNotOnline) as caught:
            hub.invoke("kitchen", "go", connect_timeout=0)
        assert caught.value.__notes__[0] == "kitchen: connected, subscribed to nothing"
    with pytest.raises(errors.DeviceNotFound) as missing:
        hub.invoke("cellar", "go")
    assert missing.value.__notes__ == ["cellar: not registered"]


def test_a_call_without_an_answer_is_listed(hub: Emulator) -> None:
    device = Device.of(hub.register_device("kitchen"))
    with MethodDevice(hub, device, silence), pytest.raises(errors.GatewayTimeout):
        hub.invoke("kitchen", "go", timeout=5)
    assert hub.calls[-1].answer is None
    assert str(hub.calls[-1].error).startswith("GatewayTimeout")


# --- uploads


def test_a_test_waits_for_files(hub: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    monkeypatch.setattr(hub.hub.uploads, "_storage", shelf)
    device = Device.of(hub.register_device("kitchen"))
    report_upload(hub, device, shelf, "a.txt", statusCode=201, statusDescription="Created")
    report_upload(hub, device, shelf, "b.txt", isSuccess=False)
    first = hub.wait_for_upload("kitchen")
    uri = "https://localhost:8444/uploads/kitchen/a.txt"
    assert first == Upload(0, "kitchen", "a.txt", True, uri, 3, 201, "Created")
    second = hub.wait_for_upload("kitchen", after=first)
    assert second == Upload(1, "kitchen", "b.txt", False, None, None, None, None)
    assert hub.wait_for_upload("kitchen", name="b.txt") == second
    with pytest.raises(WaitTimeout, match=r"^'kitchen' did not report the upload of 'c' within"):
        hub.wait_for_upload("kitchen", name="c", timeout=0.05)


# --- what did not happen

BLOCKING: dict[str, Callable[[Emulator], object]] = {
    "wait_for_event": lambda hub: hub.wait_for_event("cellar", timeout=0.05),
    "wait_until_connected": lambda hub: hub.wait_until_connected("cellar", timeout=0.05),
    "wait_until_listening": lambda hub: hub.wait_until_listening("cellar", "go", timeout=0.05),
    "wait_for_reported": lambda hub: hub.wait_for_reported("cellar", {"a": 1}, timeout=0.05),
    "wait_for_upload": lambda hub: hub.wait_for_upload("cellar", timeout=0.05),
}


@pytest.mark.parametrize("name", BLOCKING)
def test_a_wait_has_an_end_that_says_what_was_there(hub: Emulator, wire: Wire, name: str) -> None:
    with pytest.raises(WaitTimeout, match=r"within 0\.05 s") as caught:
        BLOCKING[name](hub)
    assert isinstance(caught.value, AssertionError)
    assert "connected: kitchen" in str(caught.value)
    assert "cellar: not registered" in str(caught.value)
    assert caught.value.instead["device"]["registered"] is False


# --- in an event loop


async def test_a_test_in_an_event_loop_waits_without_blocking_it(emulator: Emulator) -> None:
    async with second_hub(emulator) as hub:
        string = hub.register_device("kitchen")
        waits = [
            hub.aio.wait_until_connected("kitchen", timeout=60),
            hub.aio.wait_until_listening("kitchen", "go", timeout=60),
            hub.aio.invoke("kitchen", "go", [1], timeout=60),
            hub.aio.wait_for_event("kitchen", where={"n": 1}, timeout=60),
            hub.aio.wait_for_reported("kitchen", {"a": None}, timeout=60),
        ]
        tasks = [asyncio.ensure_future(each) for each in waits]
        await asyncio.sleep(0.1)
        # These block the loop; the hub does not run in it.
        with MethodDevice(hub, Device.of(string), echo):
            tasks_done = await asyncio.wait_for(asyncio.gather(*tasks[:3]), 60)
        assert tasks_done == [None, None, MethodAnswer(200, [1])]
        with connect_device(string, hub.mqtt_port, trust(hub)) as wire:
            wire.send(telemetry("kitchen", b'{"n": 1}'))
            event, reported = await asyncio.wait_for(asyncio.gather(*tasks[3:]), 60)
        assert isinstance(event, Event)
        assert reported == {}
        rows = await hub.aio.query("SELECT deviceId FROM devices")
        assert rows == [{"deviceId": "kitchen"}]
        with pytest.raises(WaitTimeout):
            await hub.aio.wait_for_event(where={"n": 2}, timeout=0.05)


async def test_a_wait_that_is_cancelled_leaves_the_hub(emulator: Emulator) -> None:
    async with second_hub(emulator) as hub:
        wait = asyncio.ensure_future(hub.aio.wait_for_event())
        await asyncio.sleep(0.05)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        await asyncio.to_thread(wait_until, lambda: not hub.hub.waits._open)


async def test_waits_fail_at_once_when_the_block_is_left(emulator: Emulator) -> None:
    with ThreadPoolExecutor() as pool:
        async with second_hub(emulator) as hub:
            blocking = pool.submit(hub.wait_for_event, timeout=600)
            waiting = asyncio.ensure_future(hub.aio.wait_until_connected("x", timeout=600))
            await asyncio.to_thread(wait_until, lambda: len(hub.hub.waits._open) == 2)
            began = time.monotonic()
        for future in (waiting, asyncio.wrap_future(blocking)):
            with pytest.raises(errors.ServiceUnavailable, match="The hub stopped"):
                await asyncio.wait_for(future, 10)
        assert time.monotonic() - began < 10
    with pytest.raises(RuntimeError, match="not running"):
        hub.wait_for_event()
    with pytest.raises(RuntimeError, match="not running"):
        await hub.aio.wait_for_event()


async def test_a_blocking_wait_in_the_hubs_own_loop_is_refused(emulator: Emulator) -> None:
    ports = dict.fromkeys(("mqtt_port", "https_port", "amqps_port", "amqp_port", "uploads_port"), 0)
    settings = second_hub(emulator, **ports).settings
    async with Emulator(settings).in_this_loop() as hub:
        hub.register_device("kitchen")
        with pytest.raises(RuntimeError, match="would block the event loop of the emulator"):
            hub.wait_until_connected("kitchen")
        with pytest.raises(WaitTimeout):
            await hub.aio.wait_until_connected("kitchen", timeout=0)


def test_a_predicate_that_waits_is_refused(hub: Emulator, wire: Wire) -> None:
    wire.send(telemetry("kitchen", b"x"))
    with pytest.raises(RuntimeError, match="would block the event loop of the emulator"):
        hub.wait_for_event(where=lambda event: hub.query("SELECT * FROM devices"))


# --- the environment


def test_the_environment_is_set_and_restored(
    hub: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTHUB_CONNECTION_STRING", "mine")
    monkeypatch.delenv("IOTHUB_DEVICE_ID", raising=False)
    before = dict(os.environ)
    hub.register_device("kitchen")
    with hub.patch_environment("kitchen") as variables:
        assert variables == hub.environment("kitchen")
        assert os.environ["IOTHUB_DEVICE_ID"] == "kitchen"
        assert os.environ["IOTHUB_CONNECTION_STRING"] == hub.service_connection_string
    assert dict(os.environ) == before
    with hub.patch_environment():
        assert "IOTHUB_DEVICE_ID" not in os.environ
    assert dict(os.environ) == before
    without = hub.environment()
    assert set(hub.environment("kitchen")) - set(without) == {
        *("IOTHUB_DEVICE_ID", "IOTHUB_DEVICE_CONNECTION_STRING"),
    }
    with pytest.raises(errors.DeviceNotFound):
        hub.environment("cellar")


def test_calls_come_from_many_threads(hub: Emulator) -> None:
    before = threading.active_count()  # other tests have threads too
    names = [f"device-{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hub.register_device, names))
        waits = [pool.submit(hub.query, "SELECT * FROM devices") for _ in range(20)]
        assert {len(each.result(60)) for each in waits} == {20}
    assert threading.active_count() < before + 10
    assert isinstance(hub.hub, IotHub)
