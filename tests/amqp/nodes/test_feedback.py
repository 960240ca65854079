"""Services receive feedback."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from emulator.amqp.message import Message
from emulator.amqp.performatives import (
    ACCEPTED,
    SENDER,
    SETTLED,
    Disposition,
    Modified,
    Outcome,
    Rejected,
    Released,
)
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.messages.message import Message as HubMessage
from tests.amqp.lab import AmqpClient, Lab, RemoteLink, code_of, service_token

ADDRESS = "/messages/serviceBound/feedback"
SECOND = 1


def say(lab: Lab, message_id: str = "m1", device_id: str = "d1") -> None:
    """Send a message that a device completes; its sender wants feedback."""
    hub = lab.hub.cloud_to_device
    hub.send(device_id, HubMessage(b"", {"message-id": message_id}, {"iothub-ack": "full"}))
    delivery = hub.receive(device_id)
    assert delivery is not None
    hub.complete(device_id, delivery.lock_token)


def wait(lab: Lab) -> None:
    """Let the hub notify receivers."""
    lab.clock.advance(0)


def ids(message: Message) -> list[str]:
    assert isinstance(message.body, bytes)
    return [record["originalMessageId"] for record in json.loads(message.body)]


@pytest.fixture
def client(lab: Lab) -> AmqpClient:
    opened = AmqpClient(lab).open()
    opened.put_token(service_token(lab, lifetime=7200))
    return opened


def receiver(client: AmqpClient, credit: int = 10, **fields: Any) -> RemoteLink:
    return client.receiver(ADDRESS, credit=credit, **fields)


@pytest.mark.parametrize("address", [ADDRESS, "amqps://h/messages/servicebound/feedback"])
def test_feedback_that_waits_is_sent(lab: Lab, client: AmqpClient, address: str) -> None:
    say(lab)
    link = client.receiver(address, credit=1)
    message = link.take()
    assert isinstance(message.body, bytes)
    assert json.loads(message.body) == [
        {
            "originalMessageId": "m1",
            "enqueuedTimeUtc": "2026-01-31T14:46:09Z",
            "statusCode": "Success",
            "description": "Success",
            "deviceId": "d1",
            "deviceGenerationId": lab.identity()["generationId"],
        }
    ]
    assert message.properties.content_type == "application/vnd.microsoft.iothub.feedback.json"
    assert message.properties.user_id == b"iothub-emulator"
    time = message.message_annotations["iothub-enqueuedtime"]
    assert (type(time).__name__, time) == ("Timestamp", 1769870769000)


def test_the_tag_is_the_lock_token_in_the_order_of_dotnet(lab: Lab, client: AmqpClient) -> None:
    say(lab)
    link = receiver(client)
    link.take()
    token = str(uuid.UUID(bytes_le=link.tags[0]))
    lab.hub.cloud_to_device.complete_feedback(token)


def test_feedback_is_sent_when_it_arises(lab: Lab, client: AmqpClient) -> None:
    link = receiver(client)
    client.expect_nothing()
    say(lab)
    say(lab, "m2")
    wait(lab)
    assert ids(link.take()) == ["m1", "m2"]


def test_a_message_that_expires_is_reported(lab: Lab, client: AmqpClient) -> None:
    link = receiver(client)
    system = {"message-id": "m1"}
    lab.hub.cloud_to_device.send("d1", HubMessage(b"", system, {"iothub-ack": "negative"}))
    lab.clock.advance(3600 + 5)
    assert ids(link.take()) == ["m1"]


def test_a_receiver_knows_when_a_message_expires(lab: Lab, client: AmqpClient) -> None:
    """Not later: an advance makes what is due at once."""
    link = receiver(client)
    for name in ("m1", "m2"):
        system = {"message-id": name}
        lab.hub.cloud_to_device.send("d1", HubMessage(b"", system, {"iothub-ack": "full"}))
        lab.clock.advance(1)
    lab.clock.advance(3598)
    assert ids(link.take()) == ["m1"]
    client.expect_nothing()
    lab.clock.advance(1)
    assert ids(link.take()) == ["m2"]


def test_a_receiver_that_waits_looks_only_when_feedback_waits(
    lab: Lab, client: AmqpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(lab.hub.cloud_to_device, "receive_feedback", look)
    receiver(client)
    lab.clock.advance(3600)
    assert looks == 1
    say(lab)
    wait(lab)
    assert looks == 2


def test_feedback_that_another_service_returns_is_sent_at_once(
    lab: Lab, client: AmqpClient
) -> None:
    """Over HTTPS, or over another connection."""
    say(lab)
    batch = lab.hub.cloud_to_device.receive_feedback()
    assert batch is not None
    link = receiver(client)
    client.expect_nothing()
    lab.hub.cloud_to_device.abandon_feedback(batch.lock_token)
    wait(lab)
    assert ids(link.take()) == ["m1"]


def test_feedback_that_another_service_never_settles_is_sent_when_its_lock_lapses(
    lab: Lab, client: AmqpClient
) -> None:
    """Also if the receiver waited before the lock began."""
    link = receiver(client)
    say(lab)
    assert lab.hub.cloud_to_device.receive_feedback() is not None
    lab.clock.advance(59)
    client.expect_nothing()
    lab.clock.advance(1)
    assert ids(link.take()) == ["m1"]


def test_a_receiver_is_detached_while_the_store_can_not_write(
    lab: Lab, client: AmqpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive() -> None:
        raise ServiceUnavailable

    monkeypatch.setattr(lab.hub.cloud_to_device, "receive_feedback", receive)
    error = receiver(client).detached()
    assert error is not None
    assert (error.condition, code_of(error)) == ("amqp:connection:forced", 503001)


def test_there_is_no_more_than_the_credit(lab: Lab, client: AmqpClient) -> None:
    link = receiver(client, credit=1)
    for number in range(2):
        say(lab, f"m{number}")
        wait(lab)
    assert ids(link.take()) == ["m0"]
    client.expect_nothing()
    link.grant(1)
    assert ids(link.take()) == ["m1"]


@pytest.mark.parametrize("outcome", [ACCEPTED, Rejected()], ids=["accepted", "rejected"])
@pytest.mark.parametrize("settled", [True, False])
def test_a_batch_is_deleted(lab: Lab, client: AmqpClient, outcome: Outcome, settled: bool) -> None:
    say(lab)
    link = receiver(client, rcv_settle_mode=0 if settled else SECOND)
    link.take()
    link.settle(outcome, settled=settled)
    if not settled:  # C# waits for the confirmation
        confirmed = client.take()[1]
        assert isinstance(confirmed, Disposition)
        assert (confirmed.role, confirmed.settled, confirmed.state) == (SENDER, True, outcome)
    lab.clock.advance(120)
    client.expect_nothing()


@pytest.mark.parametrize("outcome", [Released(), Modified()], ids=["released", "modified"])
def test_an_abandoned_batch_comes_again(lab: Lab, client: AmqpClient, outcome: Outcome) -> None:
    say(lab)
    link = receiver(client)
    link.take()
    link.settle(outcome)
    wait(lab)
    assert ids(link.take()) == ["m1"]
    assert link.tags[0] != link.tags[1]


def test_a_lock_lapses(lab: Lab, client: AmqpClient) -> None:
    say(lab)
    link = receiver(client, rcv_settle_mode=SECOND)
    link.take()
    lab.clock.advance(60)
    assert ids(link.take()) == ["m1"]
    link.settle(ACCEPTED, settled=False, number=link.ids[0])
    refused = client.take()[1]
    assert isinstance(refused, Disposition)
    assert isinstance(refused.state, Rejected)
    assert refused.state.error is not None
    assert refused.state.error.condition == "com.microsoft:message-lock-lost"


def test_a_batch_that_is_sent_settled_is_deleted(lab: Lab, client: AmqpClient) -> None:
    say(lab)
    link = receiver(client, snd_settle_mode=SETTLED)
    link.take()
    assert lab.hub.cloud_to_device.receive_feedback() is None
    lab.clock.advance(120)
    client.expect_nothing()


def test_a_detached_receiver_takes_nothing(lab: Lab, client: AmqpClient) -> None:
    receiver(client).detach()
    say(lab)
    wait(lab)
    client.expect_nothing()
    assert lab.hub.cloud_to_device.receive_feedback() is not None


def test_a_device_policy_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, "device"))
    refused = client.refused(client.receiver(ADDRESS))
    assert refused == ("amqp:unauthorized-access", 401002)
