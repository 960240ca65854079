"""Cloud-to-device messages through azure-iot-hub, which sends them over AMQP on port 5671."""

import logging
import queue
from collections.abc import Callable
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, Message

from emulator import Emulator
from tests.messages import pending, take_feedback
from tests.sdk.conftest import open_registry
from tests.support import PATIENCE, Device, Service, fields_of, wait_until

PROPERTIES = {
    "messageId": "m-1",
    "correlationId": "c-1",
    "contentType": "application/json",
    "contentEncoding": "utf-8",
    "iothub-ack": "full",
    "colour": "blå & grøn",
    "count": 5,
}


@pytest.fixture(autouse=True)
def amqps_port(emulator: Emulator) -> None:
    """Uamqp dials no other port."""
    if emulator.amqps_port != 5671:
        pytest.skip("another program has port 5671")


def test_a_message_reaches_a_device_with_its_properties(
    client: IoTHubDeviceClient, registry: Any, service: Service, device: Device
) -> None:
    received: queue.Queue[Message] = queue.Queue()
    client.on_message_received = received.put
    registry.send_c2d_message(device.id, '{"on": true}', properties=dict(PROPERTIES))
    message = received.get(timeout=PATIENCE)
    assert message.data == b'{"on": true}'
    assert message.message_id == "m-1"
    assert message.correlation_id == "c-1"
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.ack == "full"
    assert message.custom_properties == {"colour": "blå & grøn", "count": "5"}
    wait_until(lambda: pending(service, device) == 0)
    assert take_feedback(service, device) == [("m-1", "Success")]


def test_messages_wait_for_a_device(
    make_client: Callable[..., IoTHubDeviceClient],
    registry: Any,
    service: Service,
    device: Device,
) -> None:
    for number in range(5):
        registry.send_c2d_message(device.id, str(number))
    assert pending(service, device) == 5
    received: queue.Queue[Message] = queue.Queue()
    make_client().on_message_received = received.put
    assert [received.get(timeout=PATIENCE).data for _ in range(5)] == [
        str(number).encode() for number in range(5)
    ]


def refuse(registry: Any, device_id: str, body: str = "", **properties: Any) -> None:
    with pytest.raises(Exception, match="C2D message send failure"):
        registry.send_c2d_message(device_id, body, properties=properties)


def test_refused_messages_are_not_stored_and_others_are(
    registry: Any, service: Service, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    refuse(registry, "unknown-device")
    assert "Refused a cloud-to-device message: DeviceNotFound: unknown-device" in caplog.messages
    refuse(registry, device.id, "x" * 66_000)
    refuse(registry, device.id, **{"iothub-ack": "some"})
    assert pending(service, device) == 0
    registry.send_c2d_message(device.id, "x" * 60_000)
    assert pending(service, device) == 1


def test_the_51st_message_is_refused(registry: Any, service: Service, device: Device) -> None:
    for _ in range(50):
        registry.send_c2d_message(device.id, "")
    refuse(registry, device.id)
    assert pending(service, device) == 50


def test_a_policy_without_the_right_is_refused(
    emulator: Emulator, service: Service, device: Device
) -> None:
    fields = fields_of(emulator.policy_connection_string("registryRead"))
    registry = open_registry(";".join(f"{name}={value}" for name, value in fields.items()))
    with pytest.raises(Exception):  # noqa: B017 - uamqp has several
        registry.send_c2d_message(device.id, "")
    assert pending(service, device) == 0


def test_a_throttled_message_is_refused(
    emulator: Emulator, registry: Any, service: Service, device: Device
) -> None:
    with emulator.faults.injected("throttle", operation="send-command"):
        with pytest.raises(Exception, match="C2D message send failure"):
            registry.send_c2d_message(device.id, "x")
        assert pending(service, device) == 0
