"""Services send cloud-to-device messages."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from emulator.amqp.message import BATCH_FORMAT, Message, Value
from emulator.amqp.performatives import ACCEPTED, Properties, Rejected
from emulator.amqp.types import Float, Int, Symbol, Timestamp, ULong
from tests.amqp.lab import HOST, AmqpClient, Lab, RemoteLink, code_of, device_token, service_token

ADDRESS = "/messages/devicebound"
TO = "/devices/d1/messages/devicebound"


@pytest.fixture
def client(lab: Lab) -> AmqpClient:
    opened = AmqpClient(lab).open()
    opened.put_token(service_token(lab))
    return opened


@pytest.fixture
def link(client: AmqpClient) -> RemoteLink:
    return client.sender(ADDRESS)


def command(body: Any = b"hello", to: str | None = TO, **fields: Any) -> Message:
    return Message(body, Properties(to=to, **fields))


def refusal(link: RemoteLink, message: Message | bytes, **fields: Any) -> tuple[str, int]:
    """Send a message that is refused; return condition and code."""
    outcome = link.send(message, **fields)
    assert isinstance(outcome, Rejected)
    assert outcome.error is not None
    return outcome.error.condition, code_of(outcome.error)


def pending(lab: Lab, device_id: str = "d1") -> int:
    return lab.hub.cloud_to_device.pending(device_id)


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS,
        f"amqps://{HOST}/messages/devicebound",
        f"amqps://{HOST}:5671/messages/deviceBound/",
        "messages/devicebound",
    ],
)
@pytest.mark.parametrize(
    "to",
    [
        *(TO, "/devices/d1/messages/deviceBound", "/devices/%641/messages/devicebound"),
        f"amqps://{HOST}/devices/d1/messages/devicebound",
    ],
)
def test_a_message_is_accepted_when_it_is_stored(
    lab: Lab, client: AmqpClient, address: str, to: str
) -> None:
    link = client.sender(address)
    assert link.credit == 50
    assert link.send(command(to=to)) == ACCEPTED
    delivery = lab.hub.cloud_to_device.receive("d1")
    assert delivery is not None
    assert (delivery.body, delivery.system) == (b"hello", {"to": to})


@pytest.mark.parametrize("to", ["100%-sure", "100%25-sure"], ids=["Python", "Node"])
def test_the_id_in_to_can_be_encoded_or_not(lab: Lab, link: RemoteLink, to: str) -> None:
    lab.register("100%-sure")
    assert link.send(command(to=f"/devices/{to}/messages/devicebound")) == ACCEPTED
    assert pending(lab, "100%-sure") == 1


def test_properties_become_texts(lab: Lab, link: RemoteLink) -> None:
    expires = int((lab.clock.now().timestamp() + 60) * 1000)
    properties = Properties(
        message_id=uuid.UUID(int=1),
        user_id=b"ann",
        to=TO,
        correlation_id=ULong(7),
        content_type="text/plain",
        content_encoding="utf-8",
        absolute_expiry_time=expires,
    )
    application = {
        "text": "x",
        "int": Int(1),
        "long": 2,
        "float": Float(0.5),
        "yes": True,
        "no": False,
        "nothing": None,
        "symbol": Symbol("s"),
        "time": Timestamp(0),
        "bytes": b"b",
        "uuid": uuid.UUID(int=2),
        "iothub-ack": "full",
        "binary": b"\xff",
    }
    assert link.send(Message(b"", properties, application)) == ACCEPTED
    delivery = lab.hub.cloud_to_device.receive("d1")
    assert delivery is not None
    assert delivery.system == {
        "message-id": "00000000-0000-0000-0000-000000000001",
        "user-id": "ann",
        "to": TO,
        "correlation-id": "7",
        "content-type": "text/plain",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2026-01-31T14:47:09Z",
    }
    assert delivery.properties == {
        "text": "x",
        "int": "1",
        "long": "2",
        "float": "0.5",
        "yes": "true",
        "no": "false",
        "nothing": None,
        "symbol": "s",
        "time": "1970-01-01T00:00:00Z",
        "bytes": "b",
        "uuid": "00000000-0000-0000-0000-000000000002",
        "iothub-ack": "full",
        "binary": "/w==",
    }
    assert delivery.ack == "full"


def test_a_connected_device_gets_it_at_once(lab: Lab, link: RemoteLink) -> None:
    device = lab.connect("d1", "devices/d1/messages/devicebound/#:0")
    assert link.send(command(Value("a text"))) == ACCEPTED
    device.play(
        "<< PUBLISH devices/d1/messages/devicebound/%24.to=%2Fdevices%2Fd1%2Fmessages%2Fdevicebound"
        " a text"
    )


MALFORMED = {
    "no to": (command(to=None), "com.microsoft:argument-error", 400004),
    "another to": (command(to="/devices/d1"), "com.microsoft:argument-error", 400004),
    "an unknown device": (
        command(to="/devices/d9/messages/devicebound"), "amqp:not-found", 404001,
    ),
    "a module": (
        command(to="/devices/d1/modules/camera/messages/devicebound"), "amqp:not-found", 404001,
    ),
    "too large": (command(bytes(64 * 1024 + 1)), "amqp:link:message-size-exceeded", 413001),
    "a message id that is too long": (
        command(message_id="x" * 129), "com.microsoft:argument-error", 400004,
    ),
    "an unknown ack": (
        Message(b"", Properties(to=TO), {"iothub-ack": "some"}),
        "com.microsoft:argument-error", 400004,
    ),
    "an expiry in the past": (
        command(absolute_expiry_time=1), "com.microsoft:argument-error", 403009,
    ),
    "an expiry beyond all calendars": (
        command(absolute_expiry_time=2**62), "com.microsoft:argument-error", 400004,
    ),
    "a value that is a list": (
        Message(b"", Properties(to=TO), {"x": [1]}), "com.microsoft:argument-error", 400004,
    ),
    "a body that is a map": (command(Value({})), "com.microsoft:argument-error", 400004),
}  # fmt: skip


@pytest.mark.parametrize(("message", "condition", "code"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_refused_message_is_not_stored(
    lab: Lab, link: RemoteLink, message: Message, condition: str, code: int
) -> None:
    assert refusal(link, message) == (condition, code)
    assert pending(lab) == 0
    assert link.send(command()) == ACCEPTED


def test_bytes_that_are_no_message_are_refused(lab: Lab, link: RemoteLink) -> None:
    outcome = link.send(b"\xff\xff")
    assert isinstance(outcome, Rejected)
    assert outcome.error is not None
    assert outcome.error.condition == "amqp:decode-error"


def test_a_batch_is_refused_as_a_whole(lab: Lab, link: RemoteLink) -> None:
    batch = b"".join(Message(command().to_bytes()).to_bytes() for _ in range(2))
    refused = refusal(link, batch, message_format=BATCH_FORMAT)
    assert refused == ("com.microsoft:argument-error", 400004)
    assert pending(lab) == 0


def test_a_full_queue_refuses_the_51st_message(lab: Lab, link: RemoteLink) -> None:
    for _ in range(50):
        assert link.send(command()) == ACCEPTED
    assert refusal(link, command()) == ("amqp:resource-limit-exceeded", 403004)
    assert pending(lab) == 50


def test_a_disabled_device_is_refused(lab: Lab, link: RemoteLink) -> None:
    lab.register("d1", status="disabled")
    assert refusal(link, command()) == ("amqp:not-found", 404001)


def test_the_info_of_an_error_names_the_code(link: RemoteLink) -> None:
    outcome = link.send(command(to=None))
    assert isinstance(outcome, Rejected)
    assert outcome.error is not None
    document = json.loads(outcome.error.description or "")
    assert outcome.error.info == {
        "com.microsoft:tracking-id": document["trackingId"],
        "com.microsoft:error-code": 400004,
    }


def test_each_message_is_charged() -> None:
    lab = Lab("c2d-sends=2/min")
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab))
    link = client.sender(ADDRESS)
    codes = [link.send(command()) for _ in range(2)]
    assert codes == [ACCEPTED] * 2
    assert refusal(link, command()) == ("com.microsoft:device-container-throttled", 429001)


# --- callers

UNAUTHORIZED = "amqp:unauthorized-access", 401002


def test_a_client_without_a_token_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    assert client.refused(client.sender(ADDRESS)) == UNAUTHORIZED


@pytest.mark.parametrize("policy", ["device", "registryRead", "unknown"])
def test_a_policy_without_the_right_is_refused(lab: Lab, policy: str) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, policy))
    assert client.refused(client.sender(ADDRESS)) == UNAUTHORIZED


def test_a_device_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    assert client.refused(client.sender(ADDRESS)) == UNAUTHORIZED


@pytest.mark.parametrize("hub", ["hub", "127", "localhost:8443", HOST])
def test_plain_takes_any_name_of_a_hub(lab: Lab, hub: str) -> None:
    client = AmqpClient(lab)
    assert client.sasl(f"service@sas.root.{hub}", service_token(lab)) == 0
    assert client.open().sender(ADDRESS).send(command()) == ACCEPTED


def test_plain_with_a_wrong_key_succeeds_and_the_attach_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab)
    wrong = lab.token(HOST, "X" * 43 + "=", policy="service")
    assert client.sasl("service@sas.root.hub", wrong) == 0
    client.open()
    assert client.refused(client.sender(ADDRESS)) == UNAUTHORIZED


@pytest.mark.parametrize("user", ["iothubowner@sas.root.hub", "service", ""])
def test_plain_with_another_name_is_refused(lab: Lab, user: str) -> None:
    assert AmqpClient(lab).sasl(user, service_token(lab)) == (user != "service" and user != "")


# --- tokens that expire


def test_a_link_ends_with_its_token(lab: Lab, client: AmqpClient) -> None:
    client.put_token(service_token(lab, lifetime=60))
    link = client.sender(ADDRESS)
    lab.clock.advance(59)
    assert link.send(command()) == ACCEPTED
    lab.clock.advance(1)
    error = link.detached()
    assert error is not None
    assert (error.condition, code_of(error)) == ("amqp:unauthorized-access", 401003)


def test_a_renewed_token_keeps_the_link(lab: Lab, client: AmqpClient) -> None:
    client.put_token(service_token(lab, lifetime=60))
    link = client.sender(ADDRESS)
    lab.clock.advance(50)
    client.put_token(service_token(lab, lifetime=60))
    lab.clock.advance(59)
    assert link.send(command()) == ACCEPTED
    lab.clock.advance(1)
    assert link.detached() is not None
