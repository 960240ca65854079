"""Each fault as the SDKs see it: azure-iot-device over MQTT, azure-iot-hub over HTTPS."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse
from azure.iot.device.exceptions import (
    ClientError,
    ConnectionFailedError,
    CredentialError,
    NoConnectionError,
    ServiceError,
)

from emulator import Emulator
from emulator.faults import EmulatorFaults
from emulator.hub.core.errors import ArgumentInvalid
from tests.messages import bodies, send
from tests.support import PATIENCE, Device, Service, wait_until

if TYPE_CHECKING:
    from tests.sdk.conftest import BackEnd

MakeClient = Callable[..., IoTHubDeviceClient]


@pytest.fixture
def faults(emulator: Emulator) -> Iterator[EmulatorFaults]:
    yield emulator.faults
    emulator.faults.clear()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Runs calls while the test does something else."""
    with ThreadPoolExecutor() as executor:
        yield executor


def answer_methods(client: IoTHubDeviceClient) -> None:
    """Answer each direct method with its own payload."""

    def answer(request: MethodRequest) -> None:
        response = MethodResponse(request.request_id, 200, request.payload)
        client.send_method_response(response)

    client.on_method_request_received = answer


# --- connections


def connection_states(client: IoTHubDeviceClient) -> queue.Queue[bool]:
    """Return the queue of the states that a client goes through from now on."""
    states = queue.Queue[bool]()
    client.on_connection_state_change = lambda: states.put(client.connected)
    return states


def send_in_spite_of_the_end(client: IoTHubDeviceClient, text: str) -> None:
    """Send a message, at which the connection ends: the SDK sends it again.

    It waits for that; but if paho notices the end at once, it raises, and sends it all the same.
    """
    with contextlib.suppress(NoConnectionError):
        client.send_message(text)


@pytest.mark.parametrize("how", ["clean", "cut"])
def test_a_client_connects_again(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device, how: str
) -> None:
    states = connection_states(client)
    faults.add("drop-connection", device=device.id, how=how)
    assert [states.get(timeout=PATIENCE) for _ in range(2)] == [False, True]
    client.send_message("again")
    assert bodies(service, device.id) == ["again"]


def test_a_message_that_was_cut_off_is_sent_again(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    faults.add("drop-connection", device=device.id, operation="send-event", how="cut")
    send_in_spite_of_the_end(client, "once")
    wait_until(lambda: bodies(service, device.id) == ["once"])


def test_a_connection_is_refused(
    faults: EmulatorFaults, make_client: MakeClient, device: Device
) -> None:
    with (
        faults.injected("refuse-connection", device=device.id),
        pytest.raises(ConnectionFailedError),
    ):
        make_client().connect()
    # Another client: the SDK notes the end of a refused connection late, and takes it for that of
    # the next one.
    make_client().connect()


def test_a_token_is_refused(
    faults: EmulatorFaults, make_client: MakeClient, device: Device
) -> None:
    with (
        faults.injected("expire-token", device=device.id, duration=600),
        pytest.raises(CredentialError),
    ):
        make_client().connect()
    make_client().connect()


def test_a_token_expires_and_a_client_connects_with_a_new_one(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    states = connection_states(client)
    faults.add("expire-token", device=device.id)
    assert [states.get(timeout=PATIENCE) for _ in range(2)] == [False, True]
    client.send_message("with a new token")
    assert bodies(service, device.id) == ["with a new token"]


def test_another_device_notices_nothing(
    faults: EmulatorFaults,
    emulator: Emulator,
    client: IoTHubDeviceClient,
    device: Device,
    service: Service,
) -> None:
    neighbour = IoTHubDeviceClient.create_from_connection_string(
        emulator.register_device(f"{device.id}-neighbour")
    )
    try:
        neighbour.connect()
        faults.add("refuse-connection", device=device.id)
        faults.add("drop-connection", device=device.id, how="cut")
        faults.add("drop-puback", device=device.id)
        faults.add("twin-status", device=device.id, status=500)
        wait_until(lambda: not client.connected)
        neighbour.send_message("x")
        assert neighbour.get_twin()["reported"] == {"$version": 1}
        assert neighbour.connected
    finally:
        neighbour.shutdown()


def test_a_slow_link_delays_a_message(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    with faults.injected("slow-link", device=device.id, rate=4000):
        start = time.monotonic()
        client.send_message("x" * 4000)
        assert time.monotonic() - start > 0.9
    assert len(bodies(service, device.id)) == 1


# --- acknowledgments and telemetry


@pytest.mark.parametrize("kind", ["delay-puback", "throttle"])
def test_a_message_waits_for_its_acknowledgment(
    faults: EmulatorFaults,
    client: IoTHubDeviceClient,
    service: Service,
    device: Device,
    kind: str,
) -> None:
    faults.add(kind, device=device.id, operation="send-event", delay=1, count=1)
    start = time.monotonic()
    client.send_message("x")
    assert time.monotonic() - start > 0.9
    start = time.monotonic()
    client.send_message("y")
    assert time.monotonic() - start < 0.9
    assert bodies(service, device.id) == ["x", "y"]


def test_a_message_without_an_acknowledgment_is_sent_again_by_a_new_connection(
    faults: EmulatorFaults,
    client: IoTHubDeviceClient,
    service: Service,
    device: Device,
    background: ThreadPoolExecutor,
) -> None:
    faults.add("drop-puback", device=device.id, count=1)
    sending = background.submit(client.send_message, "x")
    wait_until(lambda: bodies(service, device.id) == ["x"])
    time.sleep(0.2)
    assert not sending.done()
    faults.add("drop-connection", device=device.id)
    sending.result(PATIENCE)
    assert bodies(service, device.id) == ["x", "x"]


def test_a_message_above_the_quota_waits_for_the_end_of_the_fault(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    faults.add("quota-exceeded", device=device.id, count=1)
    send_in_spite_of_the_end(client, "x")
    wait_until(lambda: bodies(service, device.id) == ["x"])
    assert faults.list() == []


# --- twins


@pytest.mark.parametrize("status", [400, 403, 412, 429, 500, 503])
def test_a_twin_request_fails(
    faults: EmulatorFaults, client: IoTHubDeviceClient, device: Device, status: int
) -> None:
    with faults.injected("twin-status", device=device.id, status=status):
        for request in (client.get_twin, lambda: client.patch_twin_reported_properties({"a": 1})):
            with pytest.raises(ClientError) as caught:
                request()
            assert isinstance(caught.value.__cause__, ServiceError)
            assert str(status) in str(caught.value.__cause__)
    client.patch_twin_reported_properties({"a": 1})
    assert client.get_twin()["reported"] == {"a": 1, "$version": 2}


# --- direct methods


def test_a_method_is_delayed_and_its_answer_too(
    faults: EmulatorFaults, client: IoTHubDeviceClient, back_end: BackEnd, device: Device
) -> None:
    answer_methods(client)
    faults.add("delay-method", device=device.id, delay=0.7, count=1)
    faults.add("delay-method-response", device=device.id, delay=0.7, count=1)
    start = time.monotonic()
    assert back_end.invoke("m", 1) == (200, 1)
    assert time.monotonic() - start > 1.3
    assert faults.list() == []


@pytest.mark.parametrize("kind", ["lose-method", "lose-method-response"])
def test_a_lost_method_times_out(
    faults: EmulatorFaults, client: IoTHubDeviceClient, back_end: BackEnd, device: Device, kind: str
) -> None:
    from tests.sdk.service_sdk import refused

    answer_methods(client)
    faults.add(kind, device=device.id, count=1)
    with refused(504, "GatewayTimeout"):
        back_end.invoke("m", 1, response_timeout_in_seconds=5)
    assert back_end.invoke("m", 2) == (200, 2)


@pytest.mark.parametrize(
    ("status", "name"),
    [(404, "DeviceNotOnline"), (429, "ThrottlingException"), (504, "GatewayTimeout")],
)
def test_a_method_fails(
    faults: EmulatorFaults, back_end: BackEnd, device: Device, status: int, name: str
) -> None:
    from tests.sdk.service_sdk import refused

    with faults.injected("fail-method", device=device.id, status=status), refused(status, name):
        back_end.invoke("m", 1)


# --- cloud-to-device messages


def received(client: IoTHubDeviceClient) -> queue.Queue[str]:
    messages = queue.Queue[str]()
    client.on_message_received = lambda message: messages.put(message.data.decode())
    return messages


def test_a_message_arrives_twice(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    messages = received(client)
    faults.add("duplicate-c2d", device=device.id, count=1)
    for text in ("x", "y"):
        send(service, device, text)
    found = [messages.get(timeout=PATIENCE) for _ in range(3)]
    assert sorted(found) == ["x", "x", "y"]


def test_messages_change_places(
    faults: EmulatorFaults, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    messages = received(client)
    wait_until(lambda: _is_subscribed(service, device, messages))
    faults.add("reorder-c2d", device=device.id, count=1, delay=60)
    for text in ("1", "2", "3"):
        send(service, device, text)
    assert [messages.get(timeout=PATIENCE) for _ in range(3)] == ["2", "1", "3"]


def _is_subscribed(service: Service, device: Device, messages: queue.Queue[str]) -> bool:
    send(service, device, "hello")
    return messages.get(timeout=PATIENCE) == "hello"


# --- services


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("throttle", 429, "ThrottlingException"),
        ("quota-exceeded", 403, "IotHubQuotaExceeded"),
        ("server-error", 500, "ServerError"),
        ("service-unavailable", 503, "ServiceUnavailable"),
    ],
)
def test_a_request_of_a_service_fails(
    faults: EmulatorFaults, back_end: BackEnd, device: Device, kind: str, status: int, name: str
) -> None:
    from tests.sdk.service_sdk import refused

    # The SDK does not repeat a POST.
    faults.add(kind, device=device.id, operation="invoke-method", count=1)
    with refused(status, name):
        back_end.invoke("m", 1)
    with refused(404, "DeviceNotOnline"):
        back_end.invoke("m", 1)


def test_the_sdk_repeats_a_request_that_the_hub_could_not_answer(
    faults: EmulatorFaults, registry: Any, device: Device
) -> None:
    faults.add("service-unavailable", device=device.id, operation="read-twin", count=1)
    assert registry.get_twin(device.id).device_id == device.id
    assert faults.list() == []


# --- the property of an emulator


def test_a_mistake_is_told_where_it_is_made(faults: EmulatorFaults) -> None:
    with pytest.raises(ArgumentInvalid, match=r"Invalid kind of fault: 'explode'. Use an object"):
        faults.add("explode")
    with pytest.raises(ArgumentInvalid, match=r"Unknown member of the fault throttle: 'devic'"):
        faults.add("throttle", devic="x")
    with pytest.raises(ArgumentInvalid, match=r"Unknown fault: 5. The ids of the faults: there"):
        faults.remove(5)


def test_a_fault_is_on_inside_its_block(faults: EmulatorFaults) -> None:
    with faults.injected("throttle", count=3) as number:
        assert faults.list() == [{"id": number, "hits": 0, "kind": "throttle", "count": 3}]
    assert faults.list() == []
    with pytest.raises(ZeroDivisionError), faults.injected("throttle") as number:
        raise ZeroDivisionError
    assert faults.list() == []
    with faults.injected("throttle") as number:
        faults.remove(number)  # or it has ended by its count
