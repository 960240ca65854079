"""azure-iot-device over WebSockets, which it can only dial at port 443."""

import queue
import socket
from collections.abc import Callable, Iterator

import pytest
from azure.iot.device import IoTHubDeviceClient, Message, MethodRequest, MethodResponse

from emulator import Emulator
from tests.sdk.support import desired_patches
from tests.support import PATIENCE, Device, Service, second_hub, wait_until

_HTTPS_PORT = 443


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A second emulator at the address of the first, which this process trusts already."""
    try:
        socket.create_server((emulator.host_name, _HTTPS_PORT)).close()
    except OSError as error:  # a privilege is missing, or another program listens there
        pytest.skip(f"the SDK dials port 443, which can't be listened on: {error.strerror}")
    with second_hub(emulator, https_port=_HTTPS_PORT) as running:
        yield running


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


@pytest.fixture
def client(make_client: Callable[..., IoTHubDeviceClient]) -> IoTHubDeviceClient:
    client = make_client(websockets=True)
    client.connect()
    return client


def test_a_device_connects_and_leaves(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    assert (client.connected, service.state(device.id)) == (True, "Connected")
    client.disconnect()
    wait_until(lambda: service.state(device.id) == "Disconnected")


def test_a_device_answers_a_method(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    def answer(request: MethodRequest) -> None:
        payload = {"name": request.name, "echo": request.payload}
        client.send_method_response(MethodResponse(request.request_id, 202, payload))

    client.on_method_request_received = answer
    body = {"methodName": "reboot", "payload": {"in": 5}}
    response = service.request("POST", f"/twins/{device.id}/methods", json=body)
    assert response.json() == {"status": 202, "payload": {"name": "reboot", "echo": {"in": 5}}}


def test_a_device_reads_and_patches_its_twin(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    arrived = desired_patches(client)
    client.patch_twin_reported_properties({"a": 1})
    body = {"properties": {"desired": {"b": 2}}}
    service.request("PATCH", f"/twins/{device.id}", json=body)
    assert arrived.get(timeout=PATIENCE) == {"b": 2, "$version": 2}
    assert client.get_twin() == {
        "desired": {"b": 2, "$version": 2},
        "reported": {"a": 1, "$version": 2},
    }


def test_a_device_sends_and_receives_messages(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    arrived: queue.Queue[Message] = queue.Queue()
    client.on_message_received = arrived.put
    client.send_message("x" * 200_000)
    [event] = service.request("GET", f"/_emulator/events?device={device.id}", params={}).json()
    assert event["body"] == "x" * 200_000
    service.request("POST", f"/_emulator/devices/{device.id}/messages", json={"body": "hello"})
    assert arrived.get(timeout=PATIENCE).data == b"hello"


def test_a_connection_that_the_hub_closed_is_restored_with_its_subscriptions(
    client: IoTHubDeviceClient,
    make_client: Callable[..., IoTHubDeviceClient],
    device: Device,
    service: Service,
) -> None:
    def answer(request: MethodRequest) -> None:
        client.send_method_response(MethodResponse(request.request_id, 200, "still here"))

    client.on_method_request_received = answer
    second = make_client(websockets=True, connection_retry=False)
    second.connect()
    second.disconnect()
    body = {"methodName": "are you there", "connectTimeoutInSeconds": 25}
    response = service.request("POST", f"/twins/{device.id}/methods", json=body)
    assert response.json() == {"status": 200, "payload": "still here"}
