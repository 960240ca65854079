"""Messages through azure-iot-device: telemetry in the event log, and cloud-to-device messages.

The tests read the log and send messages by the emulator's own routes: a hub in the cloud has these
over AMQP only.
"""

import asyncio
import queue
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.device.aio import IoTHubDeviceClient as AioDeviceClient

from tests.messages import pending, read_events, send, take_feedback
from tests.sdk.support import uses_deprecated_calls
from tests.support import PATIENCE, Device, Service, wait_until

MakeClient = Callable[..., IoTHubDeviceClient]
MakeAioClient = Callable[..., AioDeviceClient]


# --- telemetry


def full_message() -> Message:
    message = Message(
        '{"temperature": 21.50}',
        message_id="m-1",
        content_encoding="utf-8",
        content_type="application/json",
    )
    message.correlation_id = "c = 1"
    message.user_id = "me & you"
    message.expiry_time_utc = "2030-01-01T00:00:00Z"
    message.custom_properties.update(
        {"alert": "no & never", "unit": "°C / 🌡", "a=b": "c=d", "empty": "", "number": 5}
    )
    return message


def check_full_event(event: dict[str, Any], device: Device) -> None:
    assert event["body"] == {"temperature": 21.5}
    assert event["systemProperties"] == {
        "message-id": "m-1",
        "correlation-id": "c = 1",
        "user-id": "me & you",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2030-01-01T00:00:00Z",
    }
    assert event["properties"] == {
        "alert": "no & never",
        "unit": "°C / 🌡",
        "a=b": "c=d",
        "empty": "",
        "number": "5",
    }
    assert (event["deviceId"], event["moduleId"]) == (device.id, None)


def test_a_message_is_logged_as_it_was_sent(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    client.send_message(full_message())
    client.send_message("plain text, ä")
    first, second = read_events(service, device.id)
    check_full_event(first, device)
    assert second["body"] == "plain text, ä"
    assert second["properties"] == second["systemProperties"] == {}


async def test_a_message_of_the_asyncio_client_is_logged_as_it_was_sent(
    aio_client: AioDeviceClient, service: Service, device: Device
) -> None:
    await aio_client.send_message(full_message())
    check_full_event(read_events(service, device.id)[0], device)
    await asyncio.gather(*(aio_client.send_message(str(number)) for number in range(20)))
    bodies = [event["body"] for event in read_events(service, device.id)[1:]]
    assert sorted(bodies, key=int) == [str(number) for number in range(20)]


def test_a_message_of_almost_256_kb_is_logged(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    client.send_message("x" * 262_000)  # the SDK counts some bytes of its own
    assert len(read_events(service, device.id)[0]["body"]) == 262_000


def test_a_device_names_its_model(
    make_client: MakeClient, service: Service, device: Device
) -> None:
    model = "dtmi:com:example:Thermostat;1"
    client = make_client(product_info=model)
    client.connect()
    assert service.request("GET", f"/twins/{device.id}").json()["modelId"] == model
    client.send_message("21.5")
    assert read_events(service, device.id)[0]["annotations"]["dt-dataschema"] == model


# --- cloud-to-device


def check_full_message(message: Message, expires: str) -> None:
    assert message.data == b'{"on": true}'
    assert message.message_id == "m-1"
    assert message.correlation_id == "c-1"
    assert message.user_id == "me & you"
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.expiry_time_utc == expires
    assert message.ack == "full"
    assert message.custom_properties == {"colour": "blå & grøn", "empty": ""}


def send_full_message(service: Service, device: Device) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=1000)
    expires = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    send(
        service,
        device,
        '{"on": true}',
        messageId="m-1",
        correlationId="c-1",
        userId="me & you",
        contentType="application/json",
        contentEncoding="utf-8",
        expiryTimeUtc=expires,
        ack="full",
        properties={"colour": "blå & grøn", "empty": ""},
    )
    return expires


def test_a_message_reaches_the_handler_with_its_properties(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    received: queue.Queue[Message] = queue.Queue()
    client.on_message_received = received.put
    expires = send_full_message(service, device)
    check_full_message(received.get(timeout=PATIENCE), expires)
    wait_until(lambda: pending(service, device) == 0)
    assert take_feedback(service, device) == [("m-1", "Success")]


@uses_deprecated_calls
def test_a_message_is_received_with_its_properties(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    expires = send_full_message(service, device)  # before the SDK subscribes, which it does now
    check_full_message(client.receive_message(timeout=PATIENCE), expires)
    send(service, device, "next")
    assert client.receive_message(timeout=PATIENCE).data == b"next"


async def test_a_message_reaches_the_handler_of_the_asyncio_client(
    aio_client: AioDeviceClient, service: Service, device: Device
) -> None:
    received: asyncio.Queue[Message] = asyncio.Queue()

    async def take(message: Message) -> None:
        loop.call_soon_threadsafe(received.put_nowait, message)

    loop = asyncio.get_running_loop()
    aio_client.on_message_received = take
    expires = await asyncio.to_thread(send_full_message, service, device)
    check_full_message(await asyncio.wait_for(received.get(), PATIENCE), expires)


@uses_deprecated_calls
async def test_a_message_is_received_by_the_asyncio_client(
    aio_client: AioDeviceClient, service: Service, device: Device
) -> None:
    expires = await asyncio.to_thread(send_full_message, service, device)
    check_full_message(await asyncio.wait_for(aio_client.receive_message(), PATIENCE), expires)


def test_a_device_receives_the_messages_of_its_absence(
    client: IoTHubDeviceClient, service: Service, device: Device
) -> None:
    """The SDK subscribes once; afterwards the hub keeps the session."""
    received: queue.Queue[Message] = queue.Queue()
    client.on_message_received = received.put
    send(service, device, "first")
    assert received.get(timeout=PATIENCE).data == b"first"
    client.disconnect()
    for body in ("second", "third"):
        send(service, device, body)
    assert pending(service, device) == 2
    client.connect()
    assert [received.get(timeout=PATIENCE).data for _ in range(2)] == [b"second", b"third"]
    wait_until(lambda: pending(service, device) == 0)


def test_a_program_receives_at_its_start_the_messages_that_wait(
    make_client: MakeClient, service: Service, device: Device
) -> None:
    send(service, device, "before it ever ran")
    received: queue.Queue[Message] = queue.Queue()
    first = make_client()
    first.on_message_received = received.put
    assert received.get(timeout=PATIENCE).data == b"before it ever ran"
    wait_until(lambda: pending(service, device) == 0)
    first.disconnect()
    send(service, device, "meanwhile")
    second = make_client()
    second.on_message_received = received.put
    assert received.get(timeout=PATIENCE).data == b"meanwhile"
    wait_until(lambda: pending(service, device) == 0)
    assert received.empty()
