"""Tokens on `$cbs`."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from emulator.amqp.message import Message, Value
from emulator.amqp.performatives import RECEIVER, Attach, Properties, Source, Target
from emulator.amqp.types import ULong
from tests.amqp.lab import PUT_TOKEN, AmqpClient, Lab, service_token


@pytest.mark.parametrize(
    "message_id",
    [ULong(0), uuid.UUID(int=7), "text", b"\x01\x02"],
    ids=["ulong of uamqp", "uuid of azure-eventhub", "string of Node", "binary"],
)
def test_the_reply_has_the_message_id_in_its_own_type(lab: Lab, message_id: Any) -> None:
    client = AmqpClient(lab).open()
    reply = client.put_token(service_token(lab), message_id)
    assert type(reply.application_properties["status-code"]).__name__ == "Int"


def test_an_expired_token_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    reply = client.put_token(service_token(lab, lifetime=-1), status=401)
    assert "expired" in reply.application_properties["status-description"]


def test_an_unknown_address_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    assert client.refused(client.sender("/x")) == ("amqp:not-found", 404006)


REQUESTS = {
    "another operation": Message(Value("x"), Properties(message_id="1"), {"operation": "delete"}),
    "no operation": Message(Value("x"), Properties(message_id="1")),
    "a body of bytes": Message(b"x", Properties(message_id="1"), PUT_TOKEN),
    "a body that is a number": Message(Value(7), Properties(message_id="1"), PUT_TOKEN),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_wrong_request_is_refused_in_its_reply(lab: Lab, request_: Message) -> None:
    client = AmqpClient(lab).open()
    sender, receiver = client.sender("$cbs"), client.receiver("$cbs", credit=1)
    sender.send(request_)
    reply = receiver.take()
    assert reply.application_properties["status-code"] == 400
    assert reply.properties.correlation_id == "1"


@pytest.mark.parametrize("token", ["", "SharedAccessSignature sr=x", "x" * 5000, "ä"])
def test_a_malformed_token_is_refused(lab: Lab, token: str) -> None:
    AmqpClient(lab).open().put_token(token, status=401)


def test_a_reply_goes_to_the_link_that_the_request_names(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    links = [
        client.attach(
            Attach(name, 10 + n, RECEIVER, source=Source("$cbs"), target=Target(f"cbs-{name}"))
        )
        for n, name in enumerate(("a", "b"))
    ]
    sender = client.sender("$cbs", source=Source(None))  # azure-iothub, @azure/event-hubs
    for link in links:
        link.grant(10)
    for name, link in zip(("a", "b"), links, strict=True):
        properties = Properties(message_id=name, to="$cbs", reply_to=f"cbs-{name}")
        sender.send(Message(Value(service_token(lab)), properties, PUT_TOKEN))
        assert link.take().properties.correlation_id == name
    # Node names no link: the newest one gets the reply.
    properties = Properties(message_id="c", reply_to="cbs")
    sender.send(Message(Value(service_token(lab)), properties, PUT_TOKEN))
    assert links[1].take().properties.correlation_id == "c"
    links[1].detach()
    sender.send(Message(Value(service_token(lab)), properties, PUT_TOKEN))
    assert links[0].take().properties.correlation_id == "c"


def test_a_pair_of_links_in_each_session(lab: Lab) -> None:
    client = AmqpClient(lab).open().session(1)
    pairs = [
        (client.sender("$cbs", channel), client.receiver("$cbs", credit=5, channel=channel))
        for channel in (0, 1)
    ]
    for sender, receiver in pairs:
        sender.send(Message(Value(service_token(lab)), Properties(message_id="m"), PUT_TOKEN))
        assert receiver.take().application_properties["status-code"] == 200


def test_a_request_without_a_link_for_replies_is_settled(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.sender("$cbs").send(Message(Value(service_token(lab)), Properties(), PUT_TOKEN))
    assert client.sender("/messages/devicebound").error is None


def test_a_token_of_entra_needs_the_setting(lab: Lab) -> None:
    token = "eyJhbGciOiJub25lIn0.eyJvaWQiOiJhbm4ifQ.x"
    client = AmqpClient(lab).open()
    sender, receiver = client.sender("$cbs"), client.receiver("$cbs", credit=5)
    sender.send(Message(Value(token), Properties(message_id="1"), {**PUT_TOKEN, "type": "jwt"}))
    assert receiver.take().application_properties["status-code"] == 200
    refused = client.refused(client.sender("/messages/devicebound"))
    assert refused == ("amqp:unauthorized-access", 401003)
    lab.hub.gate._accepts_entra = True
    assert client.sender("/messages/devicebound").error is None
