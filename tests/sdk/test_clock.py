"""What unmodified SDKs do when the clock is advanced: they connect again, and go on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubConsumerClient
from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests.messages import bodies
from tests.sdk.conftest import open_registry
from tests.sdk.service_sdk import method, refused
from tests.support import PATIENCE, Device, Service, sas_token, second_hub, wait_until


@pytest.fixture
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub of its own, at an address where SDKs find port 8883."""
    with second_hub(emulator, host=free_loopback_address(), mqtt_port=8883) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


def test_a_device_connects_again_and_works(
    hub: Emulator, service: Service, client: IoTHubDeviceClient, device: Device
) -> None:
    ended, begun = threading.Event(), threading.Event()

    def note() -> None:
        (begun if client.connected else ended).set()

    received: queue.Queue[Message] = queue.Queue()
    client.on_message_received = received.put

    def answer(request: Any) -> None:
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, "ok"))

    client.on_method_request_received = answer
    client.on_connection_state_change = note
    hub.clock.advance(hours=2)
    assert ended.wait(PATIENCE)
    assert begun.wait(PATIENCE)
    client.send_message("after")
    assert bodies(service, device.id) == ["after"]
    service.wait_for_device(device.id)
    body = {"methodName": "m", "connectTimeoutInSeconds": 30}
    result = service.request("POST", f"/twins/{device.id}/methods", json=body)
    assert result.json() == {"status": 200, "payload": "ok"}
    sent = service.request("POST", f"/_emulator/devices/{device.id}/messages", json={"body": "x"})
    assert sent.status_code == 204
    assert received.get(timeout=PATIENCE).data == b"x"


def test_a_service_goes_on(hub: Emulator, device: Device) -> None:
    registry = open_registry(hub.service_connection_string)
    assert registry.get_device(device.id).device_id == device.id
    hub.clock.advance(days=400)
    assert registry.get_twin(device.id).device_id == device.id


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("minutes", [10, 120])
def test_a_reader_of_events_goes_on(
    hub: Emulator, service: Service, device: Device, minutes: int
) -> None:
    """Its link is detached when its token has expired, after an hour; it attaches a new one."""
    received: queue.Queue[str] = queue.Queue()

    def note(_: Any, event: EventData | None) -> None:
        if event is not None:
            received.put(event.body_as_str())

    reader = EventHubConsumerClient.from_connection_string(
        hub.event_hubs_connection_string, consumer_group="$Default", retry_backoff_factor=0.1
    )
    thread = threading.Thread(
        target=reader.receive, args=(note,), kwargs={"starting_position": "-1"}, daemon=True
    )
    token = sas_token(f"{hub.https_host}/devices/{device.id}", device.key)

    def send(text: str) -> None:
        path, headers = f"/devices/{device.id}/messages/events", {"Authorization": token}
        answer = service.request("POST", path, data=text, headers=dict(headers))
        assert answer.status_code == 204, answer.text

    thread.start()
    try:
        send("before")
        assert received.get(timeout=PATIENCE) == "before"
        hub.clock.advance(minutes=minutes)
        send("after")
        while (text := received.get(timeout=PATIENCE)) != "after":
            assert text == "before"  # without a checkpoint, a new link begins at the beginning
    finally:
        reader.close()
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_timeouts_end_a_call(hub: Emulator, client: IoTHubDeviceClient, device: Device) -> None:
    registry = open_registry(hub.service_connection_string)

    def wait_for(status: int, code: str, device_id: str, **time_outs: int) -> None:
        with refused(status, code):
            registry.invoke_device_method(device_id, method("reboot", **time_outs))

    hub.register_device("absent")
    called = threading.Event()
    client.on_method_request_received = lambda _: called.set()
    with ThreadPoolExecutor() as pool:
        late = pool.submit(
            *(wait_for, 504, "GatewayTimeout", device.id), response_timeout_in_seconds=60
        )
        offline = pool.submit(
            *(wait_for, 404, "DeviceNotOnline", "absent"), connect_timeout_in_seconds=30
        )
        assert called.wait(PATIENCE)
        wait_until(lambda: hub.hub.links._signals)  # the other call has arrived, too
        hub.clock.advance(seconds=31)
        offline.result(PATIENCE)
        assert not late.done()
        hub.clock.advance(seconds=30)
        late.result(PATIENCE)
