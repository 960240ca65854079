"""Services receive notifications of files."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from emulator.amqp.message import Message
from emulator.amqp.performatives import (
    ACCEPTED,
    SETTLED,
    Disposition,
    Modified,
    Outcome,
    Rejected,
    Released,
)
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Admission
from tests.amqp.lab import AmqpClient, Lab, RemoteLink, service_token
from tests.hub.fakes import done
from tests.hub.uploads.shelf import Shelf

SECOND = 1
ADDRESS = "/messages/serviceBound/filenotifications"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def lab(shelf: Shelf) -> Lab:
    return Lab(upload_storage=shelf)


def upload(lab: Lab, shelf: Shelf, name: str = "a.txt") -> None:
    """Upload a file as d1."""
    key = IdentityKey("d1")
    identity = lab.hub.store.get(Identity, key)
    assert identity is not None
    device = Admission(key, 0, identity.generation_id, "{}")
    started = lab.hub.uploads.start(device, {"blobName": name})
    shelf.put(f"d1/{name}", 1234)
    done(lab.hub.uploads.end(device, {"isSuccess": True}, started["correlationId"]))


def wait(lab: Lab) -> None:
    """Let the hub notify receivers."""
    lab.clock.advance(0)


def name(message: Message) -> str:
    assert isinstance(message.body, bytes)
    blob: str = json.loads(message.body)["blobName"]
    return blob


@pytest.fixture
def client(lab: Lab) -> AmqpClient:
    opened = AmqpClient(lab).open()
    opened.put_token(service_token(lab, lifetime=2 * 3600))
    return opened


def receiver(client: AmqpClient, credit: int = 10, **fields: Any) -> RemoteLink:
    return client.receiver(ADDRESS, credit=credit, **fields)


@pytest.mark.parametrize("address", [ADDRESS, "amqps://h/messages/servicebound/filenotifications"])
def test_a_notification_that_waits_is_sent(
    lab: Lab, shelf: Shelf, client: AmqpClient, address: str
) -> None:
    upload(lab, shelf)
    link = client.receiver(address, credit=1)
    message = link.take()
    assert isinstance(message.body, bytes)
    assert json.loads(message.body) == {
        "deviceId": "d1",
        "blobUri": "https://localhost:8444/uploads/d1/a.txt",
        "blobName": "d1/a.txt",
        "lastUpdatedTime": "2026-01-31T14:46:09+00:00",
        "blobSizeInBytes": 1234,
        "enqueuedTimeUtc": "2026-01-31T14:46:09Z",
    }
    content_type = "application/vnd.microsoft.iothub.filenotification.json"
    assert message.properties.content_type == content_type
    time = message.message_annotations["iothub-enqueuedtime"]
    assert (type(time).__name__, time) == ("Timestamp", 1769870769000)
    # The tag is the lock token in .NET's order of bytes.
    lab.hub.file_notifications.complete(str(uuid.UUID(bytes_le=link.tags[0])))


def test_a_notification_is_sent_when_it_arises(lab: Lab, shelf: Shelf, client: AmqpClient) -> None:
    link = receiver(client)
    client.expect_nothing()
    upload(lab, shelf)
    wait(lab)
    assert name(link.take()) == "d1/a.txt"


def test_receivers_share_the_notifications(lab: Lab, shelf: Shelf, client: AmqpClient) -> None:
    other = AmqpClient(lab).open()
    other.put_token(service_token(lab))
    links = [receiver(client, credit=1), receiver(other, credit=1)]
    for each in "ab":
        upload(lab, shelf, each)
    wait(lab)
    assert {name(link.take()) for link in links} == {"d1/a", "d1/b"}
    client.expect_nothing()
    other.expect_nothing()


@pytest.mark.parametrize("outcome", [ACCEPTED, Rejected()], ids=["accepted", "rejected"])
def test_a_settled_notification_is_deleted(
    lab: Lab, shelf: Shelf, client: AmqpClient, outcome: Outcome
) -> None:
    upload(lab, shelf)
    link = receiver(client)
    link.take()
    link.settle(outcome)
    lab.clock.advance(120)
    client.expect_nothing()
    assert lab.hub.file_notifications.receive() is None


@pytest.mark.parametrize("outcome", [Released(), Modified()], ids=["released", "modified"])
def test_an_abandoned_notification_comes_again(
    lab: Lab, shelf: Shelf, client: AmqpClient, outcome: Outcome
) -> None:
    upload(lab, shelf)
    link = receiver(client)
    for _ in range(10):
        assert name(link.take()) == "d1/a.txt"
        link.settle(outcome)
        wait(lab)
    client.expect_nothing()
    assert lab.hub.file_notifications.receive() is None


def test_a_lock_that_lapses_brings_it_to_another_receiver(
    lab: Lab, shelf: Shelf, client: AmqpClient
) -> None:
    upload(lab, shelf)
    first = receiver(client)
    first.take()
    other = AmqpClient(lab).open()
    other.put_token(service_token(lab))
    second = receiver(other)
    lab.clock.advance(59)
    other.expect_nothing()
    first.detach()
    lab.clock.advance(1)
    assert name(second.take()) == "d1/a.txt"


def test_one_that_is_returned_goes_to_another_receiver_at_once(
    lab: Lab, shelf: Shelf, client: AmqpClient
) -> None:
    other = AmqpClient(lab).open()
    other.put_token(service_token(lab))
    first, second = receiver(client, credit=1), receiver(other)
    upload(lab, shelf)
    wait(lab)
    first.take()
    other.expect_nothing()
    first.settle(Released())
    wait(lab)
    assert name(second.take()) == "d1/a.txt"


def test_a_lapsed_lock_can_not_be_settled(lab: Lab, shelf: Shelf, client: AmqpClient) -> None:
    upload(lab, shelf)
    link = receiver(client, credit=1, rcv_settle_mode=SECOND)
    link.take()
    lab.clock.advance(60)
    link.settle(ACCEPTED, settled=False)
    answer = client.take()[1]
    assert isinstance(answer, Disposition)
    assert isinstance(answer.state, Rejected)
    assert answer.state.error is not None
    assert answer.state.error.condition == "com.microsoft:message-lock-lost"


def test_an_expired_notification_is_not_sent(lab: Lab, shelf: Shelf, client: AmqpClient) -> None:
    upload(lab, shelf)
    lab.clock.advance(3600)
    receiver(client)
    client.expect_nothing()


def test_a_sender_that_settles_completes(lab: Lab, shelf: Shelf, client: AmqpClient) -> None:
    upload(lab, shelf)
    link = receiver(client, snd_settle_mode=SETTLED)
    link.take()
    lab.clock.advance(120)
    client.expect_nothing()
    assert lab.hub.file_notifications.receive() is None


@pytest.mark.parametrize("policy", ["device", "registryReadWrite"])
def test_a_receiver_needs_service_connect(lab: Lab, policy: str) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, policy))
    condition, code = client.refused(receiver(client))
    assert (condition, code) == ("amqp:unauthorized-access", 401002)


def test_no_client_sends_there(client: AmqpClient) -> None:
    condition, code = client.refused(client.sender(ADDRESS))
    assert (condition, code) == ("amqp:not-found", 404006)
