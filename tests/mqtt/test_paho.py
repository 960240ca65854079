"""A device on paho-mqtt, a client without an SDK (IoT Hub docs: MQTT support)."""

from __future__ import annotations

import json
import queue
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from paho.mqtt import client as mqtt

from emulator import Emulator
from tests.mqtt.raw import Invoke
from tests.support import Device, Service, sas_token

_PATIENCE = 5.0


class Paho:
    """A connected client; what its callbacks receive waits in queues."""

    def __init__(
        self, emulator: Emulator, device: Device, tls: ssl.SSLContext, clean: bool
    ) -> None:
        host = emulator.host_name
        self.client = mqtt.Client(device.id, clean_session=clean, protocol=mqtt.MQTTv311)
        self.client.username_pw_set(
            f"{host}/{device.id}/?api-version=2021-04-12",
            sas_token(f"{host}/devices/{device.id}", device.key),
        )
        self.client.tls_set_context(tls)
        self.connects: queue.Queue[tuple[int, bool]] = queue.Queue()
        self.disconnects: queue.Queue[int] = queue.Queue()
        self.acknowledged: queue.Queue[int] = queue.Queue()
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.granted: queue.Queue[tuple[int, ...]] = queue.Queue()
        self.client.connect(host, emulator.mqtt_port)
        self.client.loop_start()

    def _on_connect(self, _client: Any, _data: Any, flags: dict[str, int], code: int) -> None:
        self.connects.put((code, bool(flags["session present"])))

    def _on_disconnect(self, _client: Any, _data: Any, code: int) -> None:
        self.disconnects.put(code)

    def _on_publish(self, _client: Any, _data: Any, packet_id: int) -> None:
        self.acknowledged.put(packet_id)

    def _on_subscribe(self, _client: Any, _data: Any, _id: int, granted: tuple[int, ...]) -> None:
        self.granted.put(granted)

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.messages.put((message.topic, message.payload))

    def subscribe(self, *filters: tuple[str, int]) -> tuple[int, ...]:
        self.client.subscribe(list(filters))
        return tuple(self.granted.get(timeout=_PATIENCE))

    def message(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=_PATIENCE)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def paho(
    emulator: Emulator,
    trust: ssl.SSLContext,
    device: Device,  # whose deletion would close the clients, which wait before they reconnect
) -> Iterator[Callable[..., Paho]]:
    with ExitStack() as clients:

        def start(device: Device, *, clean: bool = True) -> Paho:
            client = Paho(emulator, device, trust, clean)
            clients.callback(client.close)
            return client

        yield start


def test_twin_and_telemetry(paho: Callable[..., Paho], service: Service, device: Device) -> None:
    client = paho(device)
    assert client.connects.get(timeout=_PATIENCE) == (0, False)
    filters = ("$iothub/twin/res/#", 2), ("$iothub/twin/PATCH/properties/desired/#", 0)
    assert client.subscribe(*filters) == (1, 0)

    topic = "$iothub/twin/PATCH/properties/reported/?$rid=1"
    sent = client.client.publish(topic, json.dumps({"rebootTime": "now"}), qos=1)
    assert client.acknowledged.get(timeout=_PATIENCE) == sent.mid
    assert client.message() == ("$iothub/twin/res/204/?$rid=1&$version=2", b"")

    service.request("PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"a": 1}}})
    topic, payload = client.message()
    assert topic == "$iothub/twin/PATCH/properties/desired/?$version=2"
    assert json.loads(payload) == {"a": 1, "$version": 2}

    client.client.publish("$iothub/twin/GET/?$rid=2")
    topic, payload = client.message()
    assert topic == "$iothub/twin/res/200/?$rid=2"
    assert json.loads(payload)["reported"] == {"rebootTime": "now", "$version": 2}

    events = f"devices/{device.id}/messages/events/"
    sent = client.client.publish(events, b"21.5", qos=1)
    sent.wait_for_publish(_PATIENCE)
    assert sent.is_published()
    assert client.disconnects.empty()


def test_a_method(paho: Callable[..., Paho], invoke: Invoke, device: Device) -> None:
    client = paho(device)
    client.subscribe(("$iothub/methods/POST/#", 0))
    call = invoke(device, "rebootDevice", {"delay": 1})
    topic, payload = client.message()
    assert topic.startswith("$iothub/methods/POST/rebootDevice/?$rid=")
    assert json.loads(payload) == {"delay": 1}
    request_id = topic.partition("?")[2]
    client.client.publish(f"$iothub/methods/res/200/?{request_id}", b'{"done": true}', qos=1)
    assert call.result().json() == {"status": 200, "payload": {"done": True}}


def test_subscriptions_outlive_a_connection_with_clean_session_0(
    paho: Callable[..., Paho], invoke: Invoke, device: Device
) -> None:
    first = paho(device, clean=False)
    assert first.connects.get(timeout=_PATIENCE) == (0, False)
    first.subscribe(("$iothub/methods/POST/#", 0), ("$iothub/twin/res/#", 1))
    first.close()

    second = paho(device, clean=False)
    assert second.connects.get(timeout=_PATIENCE) == (0, True)
    second.client.publish("$iothub/twin/GET/?$rid=1", b" ", qos=1)
    assert second.message()[0] == "$iothub/twin/res/200/?$rid=1"
    call = invoke(device, "rebootDevice")
    request_id = second.message()[0].partition("?")[2]
    second.client.publish(f"$iothub/methods/res/200/?{request_id}")
    assert call.result().status_code == 200


def test_a_client_that_lost_its_connection_comes_back_to_its_subscriptions(
    paho: Callable[..., Paho], device: Device
) -> None:
    client = paho(device, clean=False)
    client.connects.get(timeout=_PATIENCE)
    client.subscribe(("$iothub/twin/res/#", 0))
    client.client.reconnect_delay_set(1, 1)
    client.client.publish("no/such/topic", b"", qos=0)
    assert client.disconnects.get(timeout=_PATIENCE) != 0
    assert client.connects.get(timeout=_PATIENCE) == (0, True)  # it reconnects by itself
    client.client.publish("$iothub/twin/GET/?$rid=1")
    assert client.message()[0] == "$iothub/twin/res/200/?$rid=1"


def test_a_wrong_key_is_not_authorised(paho: Callable[..., Paho], device: Device) -> None:
    client = paho(device._replace(key="bm9ib2R5IGhhcyByZWdpc3RlcmVkIHRoaXMga2V5"))
    assert client.connects.get(timeout=_PATIENCE) == (5, False)
