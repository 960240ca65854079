"""The virtual clock through the front door: hub.clock, /_emulator/clock, and what clients see."""

from __future__ import annotations

import json
import threading
import time as machine
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from emulator import Emulator
from tests.devices import METHODS, connect_device, greeting
from tests.http import support
from tests.messages import pending, read_events, send, take_feedback
from tests.mqtt.raw import PINGREQ, PINGRESP, Wire, connack
from tests.support import PATIENCE, Device, Service, sas_token, second_hub, trust, wait_until

SOON = timedelta(seconds=PATIENCE)


@pytest.fixture
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub of its own: an advance of the shared one would end the connections of other tests."""
    with second_hub(emulator) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


@pytest.fixture
def device(hub: Emulator) -> Device:
    return Device.of(hub.register_device("d"))


def dial(hub: Emulator) -> Wire:
    return Wire((hub.host_name, hub.mqtt_port), trust(hub))


# --- hub.clock


def test_the_clock_is_advanced_and_read(hub: Emulator) -> None:
    assert hub.clock.advanced_by == timedelta()
    assert timedelta() <= hub.clock.now() - datetime.now(UTC) + SOON < 2 * SOON
    began = machine.monotonic()
    after = hub.clock.advance(hours=1, minutes=30)
    after = hub.clock.advance(timedelta(minutes=30))
    assert machine.monotonic() - began < 10
    assert hub.clock.advanced_by == timedelta(hours=2)
    ahead = after - datetime.now(UTC)
    assert timedelta(hours=2) - SOON < ahead <= timedelta(hours=2)
    assert hub.clock.now() >= after


@pytest.mark.parametrize(
    ("units", "error"),
    [
        ({}, "Invalid advance: 0 s. Use more than 0 s"),
        ({"hours": -1}, "Invalid advance: -3600 s. Use more than 0 s"),
        ({"hours": float("nan")}, "Invalid advance: nan s. Use more than 0 s"),
        (
            {"days": 3651},
            "Invalid advance: 3.15446e+08 s. The clock is 0 s ahead of the machine; "
            "315360000 s (3650 days) are allowed",
        ),
        (
            {"weeks": float("inf")},
            "Invalid advance: inf s. The clock is 0 s ahead of the machine; "
            "315360000 s (3650 days) are allowed",
        ),
    ],
)
def test_a_wrong_advance_is_refused(hub: Emulator, units: Any, error: str) -> None:
    with pytest.raises(ValueError) as raised:
        hub.clock.advance(**units)
    assert str(raised.value) == error
    with pytest.raises(TypeError, match="hour"):
        hub.clock.advance(hour=1)  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"Invalid span: 5\. Use advance\(seconds=5\), or a timedelta"
    ):
        hub.clock.advance(5)  # type: ignore[arg-type]
    assert hub.clock.advanced_by == timedelta()


async def test_a_hub_in_this_event_loop_is_advanced_without_blocking_it(
    emulator: Emulator,
) -> None:
    async with second_hub(emulator).in_this_loop() as hub:
        with pytest.raises(RuntimeError, match=r"Use: await hub\.clock\.advance_async\(hours=1\)"):
            hub.clock.advance(hours=1)
        await hub.clock.advance_async(hours=1)
        assert hub.clock.advanced_by == timedelta(hours=1)


async def test_a_hub_in_another_thread_is_advanced_from_an_event_loop(hub: Emulator) -> None:
    await hub.clock.advance_async(minutes=1)
    hub.clock.advance(minutes=1)
    assert hub.clock.advanced_by == timedelta(minutes=2)


def test_threads_advance_one_after_the_other(hub: Emulator) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: hub.clock.advance(minutes=1), range(24)))
    assert hub.clock.advanced_by == timedelta(minutes=24)


def test_the_clock_of_a_hub_that_has_stopped_is_gone(emulator: Emulator) -> None:
    with second_hub(emulator) as hub:
        pass
    with pytest.raises(RuntimeError, match="not running"):
        hub.clock.advance(hours=1)


# --- over HTTPS


def test_the_clock_is_advanced_and_read_over_https(service: Service) -> None:
    for body, total in ((None, 0), ("PT1H", 3600), ("P1DT0.5S", 90_000.5), (9.5, 90_010)):
        verb = "GET" if body is None else "POST"
        answer = service.request(
            verb, "/_emulator/clock", json=body and {"advance": body}, params={}
        )
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert document["advancedBy"] == total
        now = datetime.fromisoformat(document["now"])
        expected = datetime.now(UTC) + timedelta(seconds=total)
        assert expected - SOON < now <= expected


_ALLOWED = 'Use an ISO 8601 duration, such as "PT1H" or "P2DT30M", or a number of seconds'


@pytest.mark.parametrize(
    ("body", "name", "text"),
    [
        ("", "DeserializationError", ""),
        ("[]", "DeserializationError", ""),
        ("{}", "ArgumentNull", f"advance is missing. {_ALLOWED}"),
        ('{"advance": null}', "ArgumentNull", f"advance is missing. {_ALLOWED}"),
        ('{"advance": "1h"}', "ArgumentInvalid", f'Invalid advance: "1h". {_ALLOWED}'),
        ('{"advance": "P1M"}', "ArgumentInvalid", f'Invalid advance: "P1M". {_ALLOWED}'),
        ('{"advance": "P"}', "ArgumentInvalid", f'Invalid advance: "P". {_ALLOWED}'),
        ('{"advance": "PT"}', "ArgumentInvalid", f'Invalid advance: "PT". {_ALLOWED}'),
        ('{"advance": true}', "ArgumentInvalid", f"Invalid advance: true. {_ALLOWED}"),
        ('{"advance": ["PT1H"]}', "ArgumentInvalid", f'Invalid advance: ["PT1H"]. {_ALLOWED}'),
        ('{"advance": 0}', "ArgumentInvalid", "Invalid advance: 0 s. Use more than 0 s"),
        ('{"advance": -1}', "ArgumentInvalid", "Invalid advance: -1 s. Use more than 0 s"),
        ('{"advance": "PT0S"}', "ArgumentInvalid", "Invalid advance: 0 s. Use more than 0 s"),
        ('{"advance": 1e300}', "ArgumentInvalid", "(3650 days) are allowed"),
        ('{"advance": 1' + "0" * 400 + "}", "ArgumentInvalid", "(3650 days) are allowed"),
        ('{"advance": "P999999999W"}', "ArgumentInvalid", f'"P999999999W". {_ALLOWED}'),
        ('{"hours": 1}', "GenericBadRequest", "unknown member hours. Known members are advance"),
    ],
)
def test_a_wrong_advance_is_refused_over_https(
    service: Service, body: str, name: str, text: str
) -> None:
    answer = service.request("POST", "/_emulator/clock", data=body)
    assert text in support.check_error(answer, 400, name)
    assert service.request("GET", "/_emulator/clock").json()["advancedBy"] == 0


def test_a_wrong_parameter_is_refused(service: Service) -> None:
    answer = service.request("GET", "/_emulator/clock", params={"advance": "PT1H"})
    assert "Unknown parameter: advance" in support.check_error(answer, 400, "ArgumentInvalid")


# --- devices over MQTT


def test_the_token_of_an_open_connection_expires_and_a_new_one_is_judged_by_the_machines_time(
    hub: Emulator, service: Service, device: Device
) -> None:
    def greet(lifetime: int) -> bytes:
        return greeting(hub.host_name, "d", device.key, lifetime=lifetime, keep_alive=0)

    with dial(hub) as wire:
        wire.begin(greet(1200))
        hub.clock.advance(minutes=19)
        wire.send(PINGREQ)
        wire.expect(PINGRESP)
        hub.clock.advance(minutes=2)
        wire.expect_closed()
    assert service.state("d") == "Disconnected"
    hub.clock.advance(days=30)
    with dial(hub) as wire:  # its token lives for as much of the hub's time as it has left
        wire.begin(greet(1200))
        hub.clock.advance(minutes=19)
        wire.send(PINGREQ)
        wire.expect(PINGRESP)
        hub.clock.advance(minutes=2)
        wire.expect_closed()
    with dial(hub) as wire:
        wire.send(greet(-1))
        wire.expect(connack(5))


def test_a_keep_alive_lapses(hub: Emulator, service: Service, device: Device) -> None:
    with dial(hub) as wire, dial(hub) as new:
        wire.begin(greeting(hub.host_name, "d", device.key, keep_alive=60))
        hub.clock.advance(seconds=80)
        assert service.state("d") == "Connected"
        hub.clock.advance(seconds=15)
        wire.expect_closed()
        assert service.state("d") == "Disconnected"
        hub.clock.advance(hours=1)  # a client that has not begun is not harmed
        new.begin(greeting(hub.host_name, "d", device.key))
        assert service.state("d") == "Connected"


# --- what waits, and what is stamped


def test_a_message_expires_and_its_sender_is_told(
    hub: Emulator, service: Service, device: Device
) -> None:
    send(service, device, messageId="m", ack="full")
    hub.clock.advance(minutes=59)
    assert pending(service, device) == 1
    hub.clock.advance(minutes=2)
    assert pending(service, device) == 0
    assert take_feedback(service, device) == [("m", "Expired")]


def test_the_expiry_time_of_a_message_is_hub_time(
    hub: Emulator, service: Service, device: Device
) -> None:
    hub.clock.advance(days=1)
    for name, minutes in (("early", 10), ("late", 30)):
        time = hub.clock.now() + timedelta(minutes=minutes)
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ")
        send(service, device, messageId=name, ack="full", expiryTimeUtc=expiry)
    hub.clock.advance(minutes=20)
    assert take_feedback(service, device) == [("early", "Expired")]


def test_a_lock_lapses(hub: Emulator, service: Service, device: Device) -> None:
    connection = support.https_connection(hub)
    headers = {"Authorization": sas_token(f"{hub.https_host}/devices/d", device.key)}

    def receive() -> int:
        path = "/devices/d/messages/deviceBound?api-version=2021-04-12"
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    send(service, device, "hello")
    assert [receive(), receive()] == [200, 204]
    hub.clock.advance(seconds=61)
    assert [receive(), receive()] == [200, 204]
    connection.close()


def test_a_lock_that_lapses_brings_a_message_to_the_device_that_is_connected(
    hub: Emulator, service: Service, device: Device
) -> None:
    host, context = device.connection_string, trust(hub)
    send(service, device, "hello")
    connection = support.https_connection(hub)
    token = sas_token(f"{hub.https_host}/devices/d", device.key)
    path = "/devices/d/messages/deviceBound?api-version=2021-04-12"
    connection.request("GET", path, headers={"Authorization": token})
    assert connection.getresponse().read() == b"hello"
    with connect_device(host, hub.mqtt_port, context, "devices/d/messages/devicebound/#") as wire:
        hub.clock.advance(seconds=61)
        assert wire.receive_publish()[1] == b"hello"
    connection.close()


def test_a_method_times_out_at_once(hub: Emulator, service: Service, device: Device) -> None:
    with (
        ThreadPoolExecutor() as pool,
        dial(hub) as wire,
    ):
        wire.begin(greeting(hub.host_name, "d", device.key, keep_alive=0), METHODS)
        hub.register_device("absent")
        began = machine.monotonic()
        slow = pool.submit(support.invoke, service, "d", responseTimeoutInSeconds=300)
        offline = pool.submit(
            *(support.invoke, service, "absent"),
            connectTimeoutInSeconds=200,
            responseTimeoutInSeconds=300,
        )
        wire.expect_method("m")
        wait_until(lambda: hub.hub.links._signals)  # the other call waits, too
        hub.clock.advance(seconds=250)
        inner = support.check_nested_error(offline.result(PATIENCE), 404103, "DeviceNotOnline")
        assert inner["info"] == {"timeout": "00:03:20"}
        assert not slow.done()
        hub.clock.advance(minutes=1)
        inner = support.check_nested_error(slow.result(PATIENCE), 504101, "GatewayTimeout")
        assert inner["message"] == "Timed out waiting for the response from device."
        assert inner["info"] == {"timeout": "00:05:00"}
        assert machine.monotonic() - began < PATIENCE


def test_a_scheduled_job_starts_and_ends_at_its_time(
    hub: Emulator, service: Service, device: Device
) -> None:
    start = hub.clock.now() + timedelta(hours=1)
    body = {
        "type": "scheduleUpdateTwin",
        "updateTwin": {"etag": "*", "tags": {"floor": 1}},
        "queryCondition": "deviceId = 'd'",
        "startTime": start.isoformat(),
    }
    answer = service.request("PUT", "/jobs/v2/j", json=body)
    assert answer.status_code == 200, answer.text
    hub.clock.advance(minutes=59)
    assert service.request("GET", "/jobs/v2/j").json()["status"] == "scheduled"
    hub.clock.advance(hours=3)
    job = service.request("GET", "/jobs/v2/j").json()
    assert job["status"] == "completed"
    ended = datetime.fromisoformat(job["endTime"])
    assert start <= ended < start + timedelta(minutes=1)
    twin = service.request("GET", "/twins/d").json()
    assert twin["tags"] == {"floor": 1}


def test_events_are_stamped_by_hub_time_and_dropped_when_they_are_old(
    hub: Emulator, service: Service, device: Device
) -> None:
    def report(text: str) -> None:
        path = "/devices/d/messages/events"
        token = sas_token(f"{hub.https_host}/devices/d", device.key)
        answer = service.request("POST", path, data=text, headers={"Authorization": token})
        assert answer.status_code == 204, answer.text

    report("old")
    hub.clock.advance(hours=23)
    report("new")
    first, last = (
        datetime.fromisoformat(event["enqueuedTime"]) for event in read_events(service, "d")
    )
    assert timedelta(hours=23) <= last - first < timedelta(hours=23) + SOON
    hub.clock.advance(hours=2)
    assert [event["body"] for event in read_events(service, "d")] == ["new"]
    service.request("PATCH", "/twins/d", json={"properties": {"desired": {"x": 1}}})
    metadata = service.request("GET", "/twins/d").json()["properties"]["desired"]["$metadata"]
    updated = datetime.fromisoformat(metadata["$lastUpdated"])
    assert last + timedelta(hours=2) <= updated < last + timedelta(hours=2) + SOON


# --- real connections are not harmed


def test_requests_that_wait_and_streams_survive_an_advance(
    hub: Emulator, service: Service, device: Device
) -> None:
    connection, idle = support.https_connection(hub), support.https_connection(hub)
    token = support.policy_token(hub, "service")
    headers = {"Authorization": token, "Accept": "text/event-stream"}
    idle.connect()
    connection.request("GET", "/_emulator/events", headers=headers)
    stream = connection.getresponse()
    assert stream.readline() == b": events follow\n"
    hub.clock.advance(days=30)
    with connect_device(device.connection_string, hub.mqtt_port, trust(hub)):
        pass
    path, body = "/devices/d/messages/events?api-version=2021-04-12", b"still here"
    own = sas_token(f"{hub.https_host}/devices/d", device.key)
    idle.request("POST", path, body=body, headers={"Authorization": own})
    assert idle.getresponse().status == 204
    lines = iter(stream.readline, b"")
    data = next(line for line in lines if line.startswith(b"data: "))
    assert json.loads(data.removeprefix(b"data: "))["body"] == "still here"
    for each in (connection, idle):
        each.close()


def test_many_devices_and_a_long_advance_take_little_time(hub: Emulator) -> None:
    devices = [hub.register_device(f"many-{number}") for number in range(50)]
    context = trust(hub)
    wires = [connect_device(each, hub.mqtt_port, context) for each in devices]
    began = machine.monotonic()
    thread = threading.Thread(target=hub.clock.advance, kwargs={"days": 365})
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert machine.monotonic() - began < 20
    for wire in wires:
        wire.expect_closed()
        wire.close()


# --- a tolerance for tokens that have expired, as on a real hub


def test_a_token_that_has_expired_is_tolerated(emulator: Emulator) -> None:
    with second_hub(emulator, sas_tolerance=300.0) as hub:
        device = Device.of(hub.register_device("d"))
        for lifetime, code in ((-290, 0), (-310, 5)):
            with dial(hub) as wire:
                hello = greeting(hub.host_name, "d", device.key, lifetime=lifetime, keep_alive=0)
                wire.send(hello)
                wire.expect(connack(code))
                if code == 0:
                    hub.clock.advance(seconds=5)
                    wire.send(PINGREQ)
                    wire.expect(PINGRESP)
                    hub.clock.advance(seconds=10)
                wire.expect_closed()
        for lifetime, status in ((-290, 200), (-310, 401)):
            with Service(hub, lifetime=lifetime) as service:
                assert service.request("GET", "/devices/d").status_code == status
