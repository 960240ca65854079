"""`$management`, and the redirect from the hub's own address."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from emulator.amqp.message import Message, Value
from emulator.amqp.performatives import RECEIVER, Attach, Properties, Source, Target
from emulator.amqp.types import Array, Int, Timestamp, ULong
from emulator.hub.messages.event_log import ENTITY
from tests.amqp.lab import HOST, TLS_PORT, AmqpClient, Lab, service_token
from tests.amqp.nodes.event_hubs import (
    PARTITION,
    event_hubs_token,
    open_client,
    partition_of,
    send,
)

HUB = {"operation": "READ", "type": "com.microsoft:eventhub", "name": ENTITY}


def ask(client: AmqpClient, properties: dict[str, Any], message_id: Any = "1") -> Message:
    sender, receiver = client.sender("$management"), client.receiver("$management", credit=1)
    sender.post(Message(Value(None), Properties(message_id=message_id), properties))
    client.take()  # the disposition
    reply = receiver.take()
    assert reply.properties.correlation_id == message_id
    sender.detach()
    receiver.detach()
    return reply


def body(message: Message, status: int = 200) -> Any:
    assert message.application_properties["status-code"] == status
    assert isinstance(message.body, Value)
    return message.body.value


def types(values: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    return {key: (type(value), value) for key, value in values.items()}


@pytest.mark.parametrize("message_id", [uuid.uuid4(), "a", ULong(0)])
def test_the_hub_says_what_it_is(lab: Lab, message_id: Any) -> None:
    created = int(lab.hub.events.created.timestamp() * 1000)
    answer = body(ask(open_client(lab), HUB, message_id))
    assert types(answer) == {
        "name": (str, ENTITY),
        "type": (str, "com.microsoft:eventhub"),
        "created_at": (Timestamp, created),
        "partition_count": (Int, 4),
        "partition_ids": (Array, ["0", "1", "2", "3"]),
        "georeplication_factor": (Int, 1),
    }
    assert answer["partition_ids"].of is str


def partition(client: AmqpClient, number: str = PARTITION) -> Message:
    return ask(client, {**HUB, "type": "com.microsoft:partition", "partition": number})


def test_a_partition_says_where_it_begins_and_ends(lab: Lab) -> None:
    send(lab, b"1", b"2")
    last = partition_of(lab).last
    assert last is not None
    assert types(body(partition(open_client(lab)))) == {
        "name": (str, ENTITY),
        "type": (str, "com.microsoft:partition"),
        "partition": (str, PARTITION),
        "begin_sequence_number": (int, 0),
        "last_enqueued_sequence_number": (int, 1),
        "last_enqueued_offset": (str, last.offset),
        "last_enqueued_time_utc": (Timestamp, last.enqueued_ms),
        "is_partition_empty": (bool, False),
    }


def test_an_empty_partition_says_so(lab: Lab) -> None:
    found = body(partition(open_client(lab), "0"))
    assert found["is_partition_empty"] is True
    assert (found["last_enqueued_sequence_number"], found["last_enqueued_offset"]) == (-1, "-1")
    assert (found["begin_sequence_number"], found["last_enqueued_time_utc"]) == (0, 0)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "another"}, 404),
        ({"name": 1}, 404),
        ({"operation": "DELETE"}, 400),
        ({"type": "com.microsoft:other"}, 400),
        ({"type": "com.microsoft:partition", "partition": "9"}, 404),
        ({"type": "com.microsoft:partition"}, 404),
    ],
)
def test_what_is_unknown_has_a_status(lab: Lab, change: dict[str, Any], status: int) -> None:
    reply = ask(open_client(lab), HUB | change)
    assert body(reply, status) is None
    condition = "amqp:not-found" if status == 404 else "com.microsoft:argument-error"
    assert reply.application_properties["error-condition"] == condition


def test_node_has_a_reply_address_of_its_own(lab: Lab) -> None:
    client = open_client(lab)
    sender = client.sender("$management")
    links = [
        client.attach(
            Attach(name, 50 + number, RECEIVER, source=Source("$management"), target=Target(name))
        )
        for number, name in enumerate(("mine", "other"))
    ]
    for link in links:
        link.grant(1)
    sender.post(Message(Value(None), Properties(message_id="1", reply_to="mine"), HUB))
    client.take()
    assert body(links[0].take())["partition_count"] == 4
    client.expect_nothing()


@pytest.mark.parametrize("path", [ENTITY, f"{ENTITY}/$management", ""])
def test_a_token_of_the_entity_or_of_its_management_is_enough(lab: Lab, path: str) -> None:
    client = AmqpClient(lab).open()
    client.put_token(event_hubs_token(lab, path=path))
    assert client.sender("$management").error is None


def test_without_a_token_it_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    assert client.refused(client.receiver("$management"))[0] == "amqp:unauthorized-access"


# --- the hub's own address


def redirect(client: AmqpClient, path: str) -> dict[str, Any]:
    error = client.receiver(f"amqps://{HOST}/{path}").error
    assert error is not None
    assert error.condition == "amqp:link:redirect"
    assert error.info is not None
    return dict(error.info)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("messages/events/$management", "/$management"),
        ("messages/events", ""),
        (
            "messages/events/ConsumerGroups/$Default/Partitions/0",
            "/ConsumerGroups/$Default/Partitions/0",
        ),
    ],
)
def test_the_hub_redirects_readers_to_the_endpoint(lab: Lab, path: str, target: str) -> None:
    client = AmqpClient(lab)
    # The Azure CLI writes the host up to its first dot.
    assert client.sasl("service@sas.root.hub", service_token(lab)) == 0
    info = redirect(client.open(), path)
    assert types(info) == {
        "hostname": (str, HOST),
        "network-host": (str, HOST),
        "port": (Int, TLS_PORT),
        "address": (str, f"amqps://{HOST}:{TLS_PORT}/{ENTITY}{target}"),
    }


@pytest.mark.parametrize(
    ("host", "name", "in_address"),
    [
        ("localhost", "localhost", "localhost"),
        ("localhost:8443", "localhost", "localhost"),
        *((host, "::1", "[::1]") for host in ("::1", "[::1]", "[::1]:8443")),
    ],
)
def test_the_redirect_has_the_host_without_a_port(
    lab: Lab, host: str, name: str, in_address: str
) -> None:
    client = AmqpClient(lab)
    assert client.sasl("service@sas.root.hub", service_token(lab)) == 0
    client.open(host=host)
    info = redirect(client, "messages/events")
    assert (info["hostname"], info["network-host"]) == (name, name)
    assert info["address"] == f"amqps://{in_address}:{TLS_PORT}/{ENTITY}"


def test_the_redirect_needs_the_right_to_read(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, "device"))
    link = client.receiver("messages/events/$management")
    assert client.refused(link)[0] == "amqp:unauthorized-access"
