"""azure-iot-hub's IoTHubHttpRuntimeManager: the feedback of cloud-to-device messages.

The messages are sent by the emulator's own route: the SDK sends them over AMQP.
"""

from __future__ import annotations

import gc
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, Message

from emulator import Emulator
from tests.messages import pending, send, wait_until
from tests.support import Device, Service

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub import IoTHubHttpRuntimeManager
from msrest.exceptions import HttpOperationError

pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
    # paho forgets the socket pair that woke its thread, each time that it connects again.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

PATIENCE = 60


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """Have what paho forgot collected while the filter above holds."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def service(emulator: Emulator) -> Iterator[Service]:
    client = Service(emulator)
    yield client
    client.close()


@pytest.fixture
def manager(emulator: Emulator) -> Any:
    """A runtime manager with every right, of a hub without feedback."""
    manager = IoTHubHttpRuntimeManager.from_connection_string(emulator.service_connection_string)
    while (batch := receive(manager)) is not None:
        manager.complete_feedback_notification(lock_of(batch))
    return manager


def receive(manager: Any) -> Any:
    """Receive a batch, as the HTTP response that it is: the manager itself gives out none of it."""
    operations = manager.protocol.cloud_to_device_messages
    response = operations.receive_feedback_notification(raw=True).response
    return None if response.status_code == 204 else response


def lock_of(batch: Any) -> str:
    lock: str = batch.headers["ETag"].strip('"')
    return lock


def outcomes(batch: Any) -> list[tuple[str, str, str]]:
    return [
        (record["deviceId"], record["originalMessageId"], record["statusCode"])
        for record in batch.json()
    ]


def complete_messages(client: IoTHubDeviceClient, service: Service, device: Device) -> None:
    """Send a message that wants feedback, and have the device take it."""
    received: queue.Queue[Message] = queue.Queue()
    client.on_message_received = received.put
    send(service, device, "hello", messageId="m-1", ack="full")
    assert received.get(timeout=PATIENCE).data == b"hello"
    wait_until(lambda: pending(service, device) == 0)


def test_without_feedback_nothing_is_received(manager: Any) -> None:
    assert manager.receive_feedback_notification() is None
    assert receive(manager) is None


def test_feedback_is_received_and_completed(
    manager: Any, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    complete_messages(client, service, device)
    batch = receive(manager)
    assert outcomes(batch) == [(device.id, "m-1", "Success")]
    manager.complete_feedback_notification(lock_of(batch))
    assert receive(manager) is None
    with pytest.raises(HttpOperationError) as refusal:
        manager.abandon_feedback_notification(lock_of(batch))
    assert refusal.value.response.headers["iothub-errorcode"] == "DeviceMessageLockLost"


def test_feedback_that_is_abandoned_comes_again(
    manager: Any, client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    complete_messages(client, service, device)
    first = receive(manager)
    assert receive(manager) is None  # it is locked
    manager.abandon_feedback_notification(lock_of(first))
    again = receive(manager)
    assert outcomes(again) == outcomes(first) == [(device.id, "m-1", "Success")]
    assert lock_of(again) != lock_of(first)
    with pytest.raises(HttpOperationError) as refusal:
        manager.complete_feedback_notification(lock_of(first))
    assert refusal.value.response.status_code == 412
    manager.complete_feedback_notification(lock_of(again))
    assert receive(manager) is None


def test_a_policy_without_the_right_is_refused(emulator: Emulator) -> None:
    reader = IoTHubHttpRuntimeManager.from_connection_string(
        emulator.policy_connection_string("registryRead")
    )
    with pytest.raises(HttpOperationError) as refusal:
        reader.receive_feedback_notification()
    assert refusal.value.response.status_code == 401
