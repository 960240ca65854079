"""azure-iot-device over AMQP, and over AMQP in WebSockets."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator import Emulator
from emulator.faults import EmulatorFaults
from tests.messages import pending, put_module, read_events, send, take_feedback
from tests.node.conftest import Node, NodeError
from tests.support import Device, Service, sas_token, wait_until

_numbers = itertools.count(1)


class NodeDevice:
    """A client of azure-iot-device."""

    def __init__(self, node: Node, connection_string: str, transport: str, **options: Any) -> None:
        self._node = node
        self._name = f"device-{next(_numbers)}"
        self.call("create", connectionString=connection_string, transport=transport, **options)

    def call(self, name: str, **args: Any) -> Any:
        """Call a function of device.js."""
        return self._node.call("device", name, device=self._name, **args)

    def wait(self, event: str) -> Any:
        """Return the value of the next event of this name."""
        return self._node.wait(self._name, event)

    def has(self, event: str) -> bool:
        """Return whether there is such an event."""
        return self._node.has(self._name, event)


MakeDevice = Callable[..., NodeDevice]


@pytest.fixture
def device(hub: Emulator) -> Device:
    return Device.of(hub.register_device(f"node-{next(_numbers)}"))


@pytest.fixture
def make_device(node: Node, transport: str) -> Iterator[MakeDevice]:
    """Make clients, and close them in the end."""
    made: list[NodeDevice] = []

    def make(connection_string: str, *, is_open: bool = True, **options: Any) -> NodeDevice:
        client = NodeDevice(node, connection_string, transport, **options)
        made.append(client)
        if is_open:
            client.call("open")
        return client

    yield make
    for client in made:
        client.call("close")


@pytest.fixture
def client(make_device: MakeDevice, device: Device) -> NodeDevice:
    return make_device(device.connection_string)


def test_a_device_connects_and_leaves(
    client: NodeDevice, make_device: MakeDevice, service: Service, device: Device
) -> None:
    client.call("send", body="x")  # the SDK attaches its links when it needs them
    assert service.state(device.id) == "Connected"
    client.call("close")
    wait_until(lambda: service.state(device.id) == "Disconnected")
    client.call("create", connectionString=device.connection_string, transport="Amqp")


def test_telemetry(client: NodeDevice, service: Service, device: Device) -> None:
    system = {"messageId": "m1", "contentType": "application/json", "contentEncoding": "utf-8"}
    result = client.call(
        "send", body='{"t": 1}', system=system, properties={"a": "b", "dt-subject": "part"}
    )
    assert result == "MessageEnqueued"
    [event] = read_events(service, device.id)
    assert event["body"] == {"t": 1}
    assert event["properties"] == {"a": "b"}
    assert event["systemProperties"] == {
        "message-id": "m1",
        "to": f"/devices/{device.id}/messages/events",  # the SDK adds it
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "dt-subject": "part",
    }


def test_large_telemetry_and_telemetry_that_is_too_large(
    client: NodeDevice, service: Service, device: Device
) -> None:
    client.call("send", body="x" * 255 * 1024)
    assert len(read_events(service, device.id)[0]["body"]) == 255 * 1024
    with pytest.raises(NodeError) as caught:
        client.call("send", body="x" * 256 * 1024)  # with the property `to`, which the SDK adds
    assert caught.value.name == "MessageTooLargeError"
    client.call("send", body="small")
    assert len(read_events(service, device.id)) == 2


@pytest.mark.parametrize(
    ("outcome", "left", "feedback"),
    [("complete", 0, "Success"), ("reject", 0, "Rejected"), ("abandon", 1, None)],
)
def test_outcomes_of_a_message(
    client: NodeDevice, service: Service, device: Device, outcome: str, left: int,
    feedback: str | None,
) -> None:  # fmt: skip
    client.call("receive")
    service.wait_for_device(device.id)
    send(service, device, "hello", messageId="m1", ack="full", properties={"color": "blue"})
    message = client.wait("message")
    assert (message["body"], message["messageId"], message["ack"]) == ("hello", "m1", "full")
    assert message["properties"] == {"color": "blue"}
    client.call("settle", outcome=outcome)
    if left:
        assert client.wait("message")["body"] == "hello"
        client.call("settle", outcome="complete")
        feedback = "Success"
    assert pending(service, device) == 0
    assert take_feedback(service, device) == [("m1", feedback)]


def test_messages_that_waited_come_when_a_device_connects(
    make_device: MakeDevice, service: Service, device: Device
) -> None:
    for text in ("a", "b"):
        send(service, device, text)
    client = make_device(device.connection_string)
    client.call("receive")
    assert [client.wait("message")["body"] for _ in range(2)] == ["a", "b"]
    assert pending(service, device) == 2


@pytest.mark.parametrize("payload", [{"in": 5}, [], "text", 1.5, False, None])
def test_direct_methods(
    client: NodeDevice, service: Service, device: Device, payload: object
) -> None:
    client.call("answer", method="reboot", status=202)
    body = {"methodName": "reboot", "payload": payload, "connectTimeoutInSeconds": 20}
    response = service.request("POST", f"/twins/{device.id}/methods", json=body)
    expected = {"name": "reboot", "payload": payload}
    assert response.json() == {"status": 202, "payload": expected}
    assert client.wait("answered") == "reboot"


def test_a_twin(client: NodeDevice, service: Service, device: Device) -> None:
    twin = client.call("twin")
    assert twin["desired"] == {"$version": 1}
    client.call("report", patch={"a": {"b": 1}})
    path = f"/twins/{device.id}"
    assert service.request("GET", path).json()["properties"]["reported"]["a"] == {"b": 1}
    client.call("desired")
    client.wait("desired")  # the SDK tells of the twin that it has
    wait_until(lambda: _notified(client, service, path))
    with pytest.raises(NodeError) as caught:
        client.call("report", patch={"a": "x" * 5000})
    assert "4096 bytes" in str(caught.value)


def _notified(client: NodeDevice, service: Service, path: str) -> bool:
    """Change a desired property; return whether the device was told. It asks for that late."""
    service.request("PATCH", path, json={"properties": {"desired": {"color": "blue"}}})
    if not client.has("desired"):
        return False
    assert client.wait("desired")["color"] == "blue"
    return True


def test_a_module(make_device: MakeDevice, service: Service, device: Device, hub: Emulator) -> None:
    module = put_module(service, device.id)
    client = make_device(
        f"HostName={hub.host_name};DeviceId={device.id};ModuleId={module.id};"
        f"SharedAccessKey={module.key}"
    )
    client.call("send", body="m")
    [event] = read_events(service, device.id)
    assert (event["body"], event["moduleId"]) == ("m", "camera")
    assert client.call("twin")["reported"] == {"$version": 1}
    path = f"/twins/{device.id}/modules/{module.id}"
    client.call("report", patch={"a": 1})
    assert service.request("GET", path).json()["properties"]["reported"]["a"] == 1


def test_a_token_is_renewed(make_device: MakeDevice, device: Device, hub: Emulator) -> None:
    resource = f"{hub.host_name}/devices/{device.id}"
    token = sas_token(resource, device.key, lifetime=3)
    client = make_device(
        f"HostName={hub.host_name};DeviceId={device.id};SharedAccessSignature={token}"
    )
    client.call("send", body="x")
    client.call("receive")
    client.call("renew", token=sas_token(resource, device.key))
    time.sleep(4)
    client.call("send", body="x")
    assert not client.has("disconnect")


def test_an_expired_token_ends_the_links(
    make_device: MakeDevice, device: Device, hub: Emulator, service: Service
) -> None:
    token = sas_token(f"{hub.host_name}/devices/{device.id}", device.key, lifetime=2)
    client = make_device(
        f"HostName={hub.host_name};DeviceId={device.id};SharedAccessSignature={token}"
    )
    client.call("receive")
    client.wait("disconnect")
    assert service.state(device.id) == "Disconnected"


@pytest.mark.parametrize("fault", ["key", "device", "disabled"])
def test_a_device_is_refused(
    make_device: MakeDevice, service: Service, device: Device, fault: str
) -> None:
    text = device.connection_string
    if fault == "key":
        text = text.replace(device.key, "A" * 43 + "=")
    elif fault == "device":
        text = text.replace(device.id, "unknown")
    else:
        path = f"/devices/{device.id}"
        identity = service.request("GET", path).json()
        headers: dict[str, str | None] = {"If-Match": "*"}
        service.request("PUT", path, json={**identity, "status": "disabled"}, headers=headers)
    client = make_device(text)
    with pytest.raises(NodeError) as caught:
        client.call("send", body="x")
    assert caught.value.name == "UnauthorizedError"


def test_a_newer_connection_takes_over(
    client: NodeDevice, make_device: MakeDevice, service: Service, device: Device
) -> None:
    client.call("send", body="x")
    client.call("receive")
    newer = make_device(device.connection_string)
    newer.call("receive")
    client.wait("disconnect")
    send(service, device, "hello")
    assert newer.wait("message")["body"] == "hello"


def test_a_deleted_device_is_disconnected(
    client: NodeDevice, service: Service, device: Device
) -> None:
    client.call("receive")
    service.wait_for_device(device.id)
    service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
    client.wait("disconnect")


# --- faults


@pytest.fixture
def faults(hub: Emulator) -> Iterator[EmulatorFaults]:
    yield hub.faults
    hub.faults.clear()


def test_a_rejected_message_of_a_throttled_device(
    faults: EmulatorFaults, client: NodeDevice, device: Device
) -> None:
    client.call("send", body="x")
    faults.add("throttle", device=device.id, count=1)
    with pytest.raises(NodeError, match="Throttl"):
        client.call("send", body="x")
    client.call("send", body="x")


def test_a_device_connects_again_after_its_connection_was_cut(
    faults: EmulatorFaults, make_device: MakeDevice, service: Service, device: Device
) -> None:
    client = make_device(device.connection_string, retries=True)
    client.call("send", body="before")
    faults.add("drop-connection", device=device.id, how="cut")
    wait_until(lambda: service.state(device.id) == "Disconnected")
    client.call("send", body="after")
    assert [event["body"] for event in read_events(service, device.id)] == ["before", "after"]
