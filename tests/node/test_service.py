"""azure-iothub over AMQP, and over AMQP in WebSockets: messages to devices, and feedback."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator import Emulator
from tests.messages import pending, take_feedback
from tests.node.conftest import Node, NodeError
from tests.support import Device, Service

_numbers = itertools.count(1)


class NodeService:
    """A client of azure-iothub."""

    def __init__(self, node: Node, connection_string: str, transport: str) -> None:
        self._node = node
        self._name = f"service-{next(_numbers)}"
        self.call("create", connectionString=connection_string, transport=transport)

    def call(self, name: str, **args: Any) -> Any:
        """Call a function of service.js."""
        return self._node.call("service", name, service=self._name, **args)

    def feedback_on(self, message_id: str) -> dict[str, Any]:
        """Return the feedback on a message, when it arrives."""
        records: list[dict[str, Any]] = self._node.wait(self._name, "feedback")
        return next(each for each in records if each["originalMessageId"] == message_id)


@pytest.fixture
def device(hub: Emulator) -> Device:
    # Node encodes the id in `to`.
    return Device.of(hub.register_device(f"node%{uuid.uuid4().hex[:8]}"))


@pytest.fixture
def make_service(node: Node, hub: Emulator, transport: str) -> Iterator[Callable[..., NodeService]]:
    clients = []

    def make(connection_string: str = hub.service_connection_string) -> NodeService:
        if transport == "Amqp" and connection_string == hub.service_connection_string:
            connection_string = connection_string.replace(f":{hub.https_port};", ";")
        client = NodeService(node, connection_string, transport)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.call("close")


@pytest.fixture
def client(make_service: Callable[..., NodeService]) -> NodeService:
    client = make_service()
    client.call("open")
    return client


def complete(hub: Emulator, device: Device) -> dict[str, Any]:
    """Receive and complete the next message of a device; return its properties."""

    def take(it: Any) -> dict[str, Any]:
        delivery = it.cloud_to_device.receive(device.id)
        it.cloud_to_device.complete(device.id, delivery.lock_token)
        return {"body": delivery.body, **delivery.system, **delivery.properties}

    return hub._call(take)


def test_a_message_arrives_with_its_properties(
    client: NodeService, hub: Emulator, device: Device
) -> None:
    message_id = str(uuid.uuid4())
    system = {"messageId": message_id, "correlationId": "c", "ack": "full"}
    client.call("send", device=device.id, body="hello", properties={"colour": "blå"}, system=system)
    received = complete(hub, device)
    assert received["body"] == b"hello"
    assert (received["message-id"], received["correlation-id"]) == (message_id, "c")
    assert (received["colour"], received["iothub-ack"]) == ("blå", "full")


def test_refusals_have_their_own_errors(
    client: NodeService, service: Service, device: Device
) -> None:
    for change, error in (
        ({"device": "unknown"}, "DeviceNotFoundError"),
        ({"body": "x" * 66_000}, "MessageTooLargeError"),
        ({"system": {"expiryTimeUtc": 1}}, "ArgumentError"),
    ):
        with pytest.raises(NodeError) as refused:
            client.call("send", **{"device": device.id, "body": "x", **change})
        assert refused.value.name == error
    client.call("send", device=device.id, body="x")
    for _ in range(49):
        client.call("send", device=device.id, body="x")
    with pytest.raises(NodeError) as refused:
        client.call("send", device=device.id, body="x")
    assert refused.value.name == "DeviceMaximumQueueDepthExceededError"
    path = f"/devices/{device.id.replace('%', '%25')}/commands"
    assert service.request("DELETE", path).json()["totalMessagesPurged"] == 50


def test_feedback_is_received_abandoned_and_completed(
    client: NodeService, hub: Emulator, service: Service, device: Device
) -> None:
    message_id = str(uuid.uuid4())
    client.call(
        "send", device=device.id, body="x", system={"messageId": message_id, "ack": "positive"}
    )
    take_feedback(service, device)  # that of other tests
    complete(hub, device)
    client.call("receiveFeedback", outcomes=["abandon"] * 2)
    for _ in range(3):
        record = client.feedback_on(message_id)
        assert (record["statusCode"], record["deviceId"]) == ("Success", device.id)


def test_a_wrong_key_is_refused(
    make_service: Callable[..., NodeService], hub: Emulator, device: Device
) -> None:
    host = hub.host_name
    client = make_service(
        f"HostName={host};SharedAccessKeyName=service;SharedAccessKey={'A' * 43}="
    )
    client.call("open")
    with pytest.raises(NodeError) as refused:
        client.call("send", device=device.id, body="x")
    assert refused.value.name == "UnauthorizedError"


@pytest.mark.parametrize("transport", ["Amqp"], indirect=True)
def test_the_https_port_speaks_amqp_too(
    node: Node, hub: Emulator, service: Service, device: Device
) -> None:
    client = NodeService(node, hub.service_connection_string, "Amqp")
    client.call("open")
    client.call("send", device=device.id, body="x")
    client.call("close")
    document = Device(device.id.replace("%", "%25"), device.key, device.connection_string)
    assert pending(service, document) == 1
