"""azure-iot-hub's IoTHubHttpRuntimeManager: the feedback of cloud-to-device messages.

The messages are sent by the emulator's own route: the SDK sends them over AMQP.
"""

import queue
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, Message

from emulator import Emulator
from tests.messages import pending, send
from tests.sdk.service_sdk import refused, sdk
from tests.support import PATIENCE, Device, Service, wait_until

make_manager = sdk.IoTHubHttpRuntimeManager.from_connection_string


@pytest.fixture
def manager(emulator: Emulator) -> Any:
    """A runtime manager with every right, of a hub without feedback."""
    manager = make_manager(emulator.service_connection_string)
    for _ in range(1000):
        if (batch := receive(manager)) is None:
            return manager
        manager.complete_feedback_notification(lock_of(batch))
    raise AssertionError("there is always another batch")


def receive(manager: Any) -> Any:
    """Receive a batch as an HTTP response: the manager itself returns nothing of it."""
    operations = manager.protocol.cloud_to_device_messages
    response = operations.receive_feedback_notification(raw=True).response
    return None if response.status_code == 204 else response


def lock_of(batch: Any) -> str:
    return str(batch.headers["ETag"].strip('"'))


def outcomes(batch: Any) -> list[tuple[str, str, str]]:
    return [
        (record["deviceId"], record["originalMessageId"], record["statusCode"])
        for record in batch.json()
    ]


def complete_messages(client: IoTHubDeviceClient, service: Service, device: Device) -> None:
    """Send a message with feedback, and wait until the device completes it."""
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
    with refused(412, "DeviceMessageLockLost"):
        manager.abandon_feedback_notification(lock_of(batch))


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
    with refused(412, "DeviceMessageLockLost"):
        manager.complete_feedback_notification(lock_of(first))
    manager.complete_feedback_notification(lock_of(again))
    assert receive(manager) is None


def test_a_policy_without_the_right_is_refused(emulator: Emulator) -> None:
    reader = make_manager(emulator.policy_connection_string("registryRead"))
    with refused(401, "IotHubUnauthorizedAccess"):
        reader.receive_feedback_notification()
