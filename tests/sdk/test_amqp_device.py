"""A device that speaks AMQP by itself, with uamqp: it settles in the mode *second*, as C# does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from emulator import Emulator
from tests.messages import pending, put_module, read_events, send, take_feedback
from tests.support import Device, Service, sas_token

uamqp = pytest.importorskip("uamqp", reason="azure-iot-hub has no build here")


def _plain(emulator: Emulator, name: str, resource: str, key: str) -> Any:
    """Return the credentials of SASL PLAIN."""
    token = sas_token(f"{emulator.host_name}/devices/{resource}", key)
    host = emulator.host_name
    return uamqp.authentication.SASLPlain(
        host, f"{name}@sas.{host}", token, port=emulator.amqps_port, verify=str(emulator.ca_file)
    )


@contextlib.contextmanager
def _receiver(emulator: Emulator, device: Device, **options: Any) -> Iterator[Any]:
    source = f"amqps://{emulator.host_name}/devices/{device.id}/messages/devicebound"
    auth = _plain(emulator, device.id, device.id, device.key)
    client = uamqp.ReceiveClient(source, auth=auth, auto_complete=False, **options)
    try:
        client.open()
        while not client.client_ready():
            client.do_work()
        yield client
    finally:
        client.close()


def _take(client: Any) -> Any:
    [message] = client.receive_message_batch(max_batch_size=1, timeout=20_000)
    return message


def _send(emulator: Emulator, path: str, auth: Any, *messages: Any) -> None:
    client = uamqp.SendClient(f"amqps://{emulator.host_name}/devices/{path}", auth=auth)
    try:
        client.queue_message(*messages)
        results = client.send_all_messages(close_on_done=False)
    finally:
        client.close()
    assert results == [uamqp.constants.MessageState.SendComplete] * len(messages)


def test_telemetry(emulator: Emulator, service: Service, device: Device) -> None:
    auth = _plain(emulator, device.id, device.id, device.key)
    properties = uamqp.message.MessageProperties(message_id="m1", content_type="application/json")
    message = uamqp.Message(
        b'{"t": 1}', properties=properties, application_properties={"text": "a", "number": 5}
    )
    large = uamqp.Message(b"x" * 200_000)  # in several frames
    _send(emulator, f"{device.id}/messages/events/", auth, message, large)
    first, second = read_events(service, device.id)
    assert first["body"] == {"t": 1}
    assert first["properties"] == {"text": "a", "number": "5"}
    assert first["systemProperties"] == {"message-id": "m1", "content-type": "application/json"}
    assert len(second["body"]) == 200_000


def test_a_module_sends(emulator: Emulator, service: Service, device: Device) -> None:
    module = put_module(service, device.id)
    auth = _plain(emulator, f"{device.id}/{module.id}", module.path, module.key)
    _send(emulator, f"{module.path}/messages/events", auth, uamqp.Message(b"m"))
    [event] = read_events(service, device.id)
    assert (event["body"], event["moduleId"]) == ("m", module.id)


@pytest.mark.parametrize(
    ("outcome", "left", "feedback"),
    [
        ("accept", 0, ["Success"]),
        ("reject", 0, ["Rejected"]),
        ("release", 1, []),
        ("modify", 1, []),
    ],
)
def test_outcomes(
    emulator: Emulator,
    service: Service,
    device: Device,
    outcome: str,
    left: int,
    feedback: list[str],
) -> None:
    send(service, device, "x" * 60_000, messageId="m1", ack="full")
    with _receiver(emulator, device, prefetch=1) as client:
        message = _take(client)
        assert b"".join(message.get_data()) == b"x" * 60_000
        arguments = (True, False) if outcome == "modify" else ()
        assert getattr(message, outcome)(*arguments)
        for _ in range(10):
            client.do_work()
    assert pending(service, device) == left
    assert take_feedback(service, device) == [("m1", each) for each in feedback]


def test_a_message_returns_with_the_end_of_its_link(
    emulator: Emulator, service: Service, device: Device
) -> None:
    send(service, device, "hello")
    for _ in range(2):
        with _receiver(emulator, device) as client:
            assert b"".join(_take(client).get_data()) == b"hello"
    assert pending(service, device) == 1


def test_a_wrong_token_is_refused_at_the_attach(emulator: Emulator, device: Device) -> None:
    auth = _plain(emulator, device.id, device.id, "A" * 43 + "=")
    client = uamqp.SendClient(
        f"amqps://{emulator.host_name}/devices/{device.id}/messages/events", auth=auth
    )
    try:
        client.queue_message(uamqp.Message(b"x"))
        with pytest.raises(uamqp.errors.LinkDetach) as caught:
            client.send_all_messages(close_on_done=False)
        assert caught.value.condition.value == b"amqp:unauthorized-access"
    finally:
        client.close()
