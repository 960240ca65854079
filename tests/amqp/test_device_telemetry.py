"""Telemetry of devices and modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from emulator.amqp.encoder import encode, encode_binary
from emulator.amqp.message import BATCH_FORMAT, Message, Value
from emulator.amqp.performatives import (
    ACCEPTED,
    Detach,
    Disposition,
    Properties,
    Rejected,
    Transfer,
)
from emulator.amqp.types import Int, Symbol, Timestamp
from emulator.hub.messages.event import Origin
from emulator.hub.messages.message import Message as HubMessage
from tests.amqp.devices import connect, telemetry
from tests.amqp.lab import AmqpClient, Lab, code_of, device_token
from tests.amqp.playbook import write
from tests.clock import settle


def test_a_message_is_accepted_and_logged(lab: Lab) -> None:
    link = telemetry(connect(lab))
    assert link.send(Message(b"hello")) == ACCEPTED
    [event] = lab.events()
    assert event["body"] == "hello"
    assert event["annotations"]["iothub-connection-device-id"] == "d1"
    assert event["annotations"]["iothub-connection-auth-method"].startswith('{"scope":"device"')


@pytest.mark.parametrize(
    "address",
    [
        "/devices/d1/messages/events",
        "/devices/d1/messages/events/",
        "amqps://hub.test/devices/d1/messages/events",
        "/Devices/d1/Messages/Events",
        "/devices/%641/messages/events",
    ],
)
def test_the_forms_of_an_address(lab: Lab, address: str) -> None:
    assert connect(lab).sender(address).send(Message(b"x")) == ACCEPTED
    assert lab.bodies() == ["x"]


def test_all_properties_become_text(lab: Lab) -> None:
    message = Message(
        b"{}",
        Properties(
            message_id=UUID(int=1),
            user_id=b"me",
            to="there",
            correlation_id="c",
            content_type="application/json",
            content_encoding="utf-8",
            absolute_expiry_time=Timestamp(1_000),
        ),
        {"text": "a", "number": Int(5), "large": 2.5, "yes": True, "null": None, "Text": "b"},
        {Symbol("dt-subject"): "thermostat", Symbol("iothub-interface-id"): "urn:x", "other": 1},
    )
    telemetry(connect(lab)).send(message)
    [event] = lab.events()
    assert event["systemProperties"] == {
        "message-id": "00000000-0000-0000-0000-000000000001",
        "user-id": "me",
        "to": "there",
        "correlation-id": "c",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "1970-01-01T00:00:01Z",
        "dt-subject": "thermostat",
        "iothub-interface-id": "urn:x",
    }
    assert event["properties"] == {
        "number": "5",
        "large": "2.5",
        "yes": "true",
        "null": None,
        "Text": "b",
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [(Value("text"), "text"), (Value(b"bytes"), "bytes"), (Value(None), ""), (b"", "")],
)
def test_forms_of_bodies(lab: Lab, body: Any, expected: str) -> None:
    assert telemetry(connect(lab)).send(Message(body)) == ACCEPTED
    assert lab.bodies() == [expected]


@pytest.mark.parametrize(
    "message",
    [
        Message(Value(5)),
        b"\x00\x53\x76" + encode([1]),  # a sequence
        Message(b"", application_properties={"x": [1]}),
        Message(b"", Properties(absolute_expiry_time=Timestamp(2**62))),
        b"no message",
    ],
)
def test_a_message_that_cannot_be_read_is_rejected(lab: Lab, message: Any) -> None:
    link = telemetry(connect(lab))
    assert isinstance(link.send(message), Rejected)
    assert link.send(Message(b"next")) == ACCEPTED
    assert lab.bodies() == ["next"]


def test_messages_that_come_together_are_stored_together(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(lab)
    link = telemetry(client)
    stored = []
    monkeypatch.setattr(lab.hub.events, "extend_soon", _counted(lab.hub.events.extend_soon, stored))
    transfers = b"".join(
        write(0, Transfer(link.handle, number, b"%d" % number), Message(b"x").to_bytes())
        for number in range(20)
    )
    client.send(transfers + write(0, Detach(link.handle, closed=True)))
    assert stored == [20]
    outcome = client.take()[1]  # before the link ends
    assert isinstance(outcome, Disposition)
    assert (outcome.first, outcome.last, outcome.state) == (0, 19, ACCEPTED)
    assert isinstance(client.take()[1], Detach)
    assert len(lab.events()) == 20


def _counted(extend_soon: Callable[..., None], counts: list[int]) -> Callable[..., None]:
    def counted(place: int, origin: Origin, messages: list[HubMessage], *more: Any) -> None:
        counts.append(len(messages))
        extend_soon(place, origin, messages, *more)

    return counted


def test_a_batch_is_several_messages(lab: Lab) -> None:
    messages = [Message(b"1", application_properties={"n": "1"}), Message(b"2")]
    batch = b"".join(b"\x00\x53\x75" + encode_binary(each.to_bytes()) for each in messages)
    assert telemetry(connect(lab)).send(batch, message_format=BATCH_FORMAT) == ACCEPTED
    assert [(each["body"], each["properties"]) for each in lab.events()] == [
        ("1", {"n": "1"}),
        ("2", {}),
    ]


async def test_a_large_batch_is_taken_in_parts_and_in_order(lab: Lab) -> None:
    link = telemetry(connect(lab))
    numbers = [*range(1_000)]
    batch = [b"\x00\x53\x75" + encode_binary(Message(b"%d" % each).to_bytes()) for each in numbers]
    first = link.post(b"".join(batch), message_format=BATCH_FORMAT)
    link.post(Message(b"1000"))
    malformed = [*batch[:500], b"\x00\x53\x75" + encode_binary(b"no message")]
    last = link.post(b"".join(malformed), message_format=BATCH_FORMAT)
    assert len(lab.events()) < 1_000
    await settle(200)
    assert [int(each) for each in lab.bodies()] == [*numbers, 1_000]
    outcomes = [link.client.take()[1] for _ in range(2)]
    assert [(each.first, each.last) for each in outcomes] == [(first, first + 1), (last, last)]  # type: ignore[union-attr]
    assert isinstance(outcomes[1].state, Rejected)  # type: ignore[union-attr]


def test_a_message_that_is_too_large_is_rejected(lab: Lab) -> None:
    client = AmqpClient(lab).open(max_frame_size=2**20)
    client.put_token(device_token(lab))
    link = telemetry(client)
    outcomes = []
    for size in (256 * 1024, 256 * 1024 + 1, 512 * 1024):
        payload = Message(b"x" * size).to_bytes()
        parts = [payload[i : i + 60_000] for i in range(0, len(payload), 60_000)]
        outcomes.append(_send_parts(client, link, parts))
    assert outcomes[0] == ACCEPTED
    for outcome in outcomes[1:]:
        assert isinstance(outcome, Rejected)
        assert outcome.error is not None
        assert outcome.error.condition == "amqp:link:message-size-exceeded"
        assert code_of(outcome.error) == 413001
    assert len(lab.events()) == 1


def _send_parts(client: AmqpClient, link: Any, parts: list[bytes]) -> Any:
    from emulator.amqp.performatives import Transfer
    from tests.amqp.playbook import write

    number = client.next_number()
    for part in parts[:-1]:
        client.send(write(0, Transfer(link.handle, number, b"t", more=True), part))
    client.send(write(0, Transfer(link.handle, number, b"t"), parts[-1]))
    return client.take()[1].state  # type: ignore[union-attr]


def test_settled_messages_renew_the_credit(lab: Lab) -> None:
    link = telemetry(connect(lab))
    for number in range(300):
        link.post(Message(b"%d" % number), settled=True)
        link.client.connection.data_to_send()
    assert len(lab.events()) == 300


def test_a_module_sends_as_itself(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, "d1/camera", "Q" * 43 + "="))
    telemetry(client, "d1/camera").send(Message(b"m"))
    [event] = lab.events()
    assert event["moduleId"] == "camera"
    assert lab.state("d1/camera") == "Connected"
    assert lab.state("d1") == "Disconnected"


def test_the_model_of_a_link_is_announced(lab: Lab) -> None:
    link = telemetry(connect(lab), properties={Symbol("com.microsoft:model-id"): "dtmi:x;1"})
    link.send(Message(b"m"))
    assert lab.events()[0]["annotations"]["dt-dataschema"] == "dtmi:x;1"
    assert lab.twin()["modelId"] == "dtmi:x;1"


async def test_messages_over_the_rate_wait_for_their_outcome() -> None:
    lab = Lab("d2c-sends=1/s")
    link = telemetry(connect(lab))
    assert link.credit == 10
    numbers = [link.post(Message(b"%d" % number)) for number in range(3)]
    await settle()
    assert lab.bodies() == ["0"]
    assert link.client.take()[1].first == numbers[0]  # type: ignore[union-attr]
    link.client.expect_nothing()
    await lab.clock.pass_time(1)
    assert lab.bodies() == ["0", "1"]
    await lab.clock.pass_time(1)
    assert lab.bodies() == ["0", "1", "2"]


async def test_messages_that_wait_end_with_their_link() -> None:
    lab = Lab("d2c-sends=1/s")
    link = telemetry(connect(lab))
    for number in range(3):
        link.post(Message(b"%d" % number))
    await settle()
    link.client.connection.data_to_send()
    link.client.connection.lost()
    await lab.clock.pass_time(10)
    assert lab.bodies() == ["0"]
    assert lab.state() == "Disconnected"
