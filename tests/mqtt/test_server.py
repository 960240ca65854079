"""Devices over TLS: what only shows with sockets, and each part of MQTT once from end to end."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable

import pytest

from emulator import Emulator
from emulator.hub.core import limits
from tests.messages import bodies, read_events
from tests.mqtt import raw
from tests.mqtt.raw import Dial, Greet, Invoke, Online, Wire
from tests.support import Device, Service, wait_until

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_REPORTED = "$iothub/twin/PATCH/properties/reported/"


# --- from end to end


def test_a_twin(online: Online, service: Service, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS, _DESIRED)
    wire.send(raw.publish(f"{_REPORTED}?$rid=1", b'{"a": 1.0}', packet_id=7))
    wire.expect(raw.puback(7))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    assert service.request("GET", f"/twins/{device.id}").json()["properties"]["reported"]["a"] == 1
    service.request("PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"b": 2}}})
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=2", {"b": 2, "$version": 2}
    )
    wire.send(raw.publish("$iothub/twin/GET/?$rid=2"))
    body = wire.expect_publish("$iothub/twin/res/200/?$rid=2")
    assert body == b'{"desired":{"b":2,"$version":2},"reported":{"a":1.0,"$version":2}}'


def test_a_direct_method(online: Online, invoke: Invoke, device: Device) -> None:
    wire = online(device, _METHODS)
    payload = "x" * (128 * 1024 - 2)  # as large as may be
    call = invoke(device, "reboot", payload)
    request_id = wire.expect_method("reboot", payload)
    wire.send(
        raw.publish(f"$iothub/methods/res/202/?$rid={request_id}", json.dumps(payload).encode())
    )
    assert call.result().json() == {"status": 202, "payload": payload}
    call = invoke(device, "reboot")
    wire.expect_method("reboot")
    wire.close()
    assert call.result().headers["iothub-errorcode"] == "DeviceNotOnline"


def test_a_cloud_to_device_message(online: Online, service: Service, device: Device) -> None:
    wire = online(device)
    wire.send(raw.subscribe(1, (f"devices/{device.id}/messages/devicebound/#", 1)))
    wire.expect(raw.suback(1, 1))
    path = f"/_emulator/devices/{device.id}/messages"
    service.request("POST", path, json={"body": "hello", "messageId": "m"})
    data = wire.receive()
    topic, body = raw.published(data)
    to = f"%24.to=%2Fdevices%2F{device.id}%2Fmessages%2FdeviceBound"
    assert topic == f"devices/{device.id}/messages/devicebound/%24.mid=m&{to}"
    assert body == b"hello"
    wire.send(raw.puback(raw.packet_id(data)))
    wire.expect_nothing()
    assert service.request("GET", f"/twins/{device.id}").json()["cloudToDeviceMessageCount"] == 0


def test_telemetry_and_a_will(online: Online, service: Service, device: Device) -> None:
    topic = f"devices/{device.id}/messages/events/$.ct=application%2Fjson&n=1"
    wire = online(device, will=(topic, b"[2.50]"))
    wire.send(raw.publish(topic, b"[21.50,1e5]", packet_id=1))
    wire.expect(raw.puback(1))
    wire.send(raw.publish(topic, bytes(limits.D2C_MESSAGE_BYTES - 50), packet_id=2))
    wire.expect(raw.puback(2))
    wire.close()
    wait_until(lambda: len(read_events(service, device.id)) == 3)
    answer = service.request("GET", "/_emulator/events", params={"device": device.id})
    assert '"body":[21.50,1e5]' in answer.text  # numbers as they were written
    assert '"body":[2.50]' in answer.text


def test_the_hub_ends_connections(
    online: Online, dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    older = online(device, _TWIN_ANSWERS)
    newer = online(device, _TWIN_ANSWERS)
    older.expect_closed()
    newer.expect_nothing()
    identity = service.request("GET", f"/devices/{device.id}").json() | {"status": "disabled"}
    headers = {"If-Match": "*"}
    service.request("PUT", f"/devices/{device.id}", json=identity, headers=headers)
    newer.expect_closed()
    refused = dial()
    refused.send(greet(device))
    refused.expect(raw.connack(5))
    refused.expect_closed()


def test_the_device_ends_its_connection(online: Online, service: Service, device: Device) -> None:
    for end in (
        lambda wire: wire.send(raw.DISCONNECT),
        lambda wire: wire.send(b"\xf0\x00"),
        Wire.close,
    ):
        wire = online(device)
        assert service.state(device.id) == "Connected"
        end(wire)
        if end is not Wire.close:
            wire.expect_closed()
        wait_until(lambda: service.state(device.id) == "Disconnected")


@pytest.mark.parametrize("connected", [True, False])
def test_a_client_that_is_silent_is_closed(
    online: Online, dial: Dial, device: Device, connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MQTT_CONNECT_TIMEOUT", 0.1)
    monkeypatch.setattr(limits, "MQTT_KEEP_ALIVE_MAX", 0.1)
    wire = online(device) if connected else dial()
    wire.expect_closed()


# --- TLS and below


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16",
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\x01\xff\xff" + b"\xff" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(10_000),
        raw.connect("d", "h/d", "p"),
    ],
    ids=["nothing", "one byte", "a bad hello", "a long one", "HTTP", "zeros", "MQTT"],
)
def test_a_client_without_tls_gets_no_connack(emulator: Emulator, data: bytes) -> None:
    address = (emulator.host_name, emulator.mqtt_port)
    with socket.create_connection(address, timeout=5) as plain:
        plain.sendall(data)
        if len(data) > 1:
            answer = b""
            with contextlib.suppress(ConnectionError):
                while received := plain.recv(4096):
                    answer += received
            assert raw.connack(0) not in answer
            assert answer[:1] in (b"", b"\x15")  # nothing, or a TLS alert


def test_invalid_records_within_tls_end_the_connection(
    emulator: Emulator, trust: ssl.SSLContext, greet: Greet, device: Device
) -> None:
    address = (emulator.host_name, emulator.mqtt_port)
    with socket.create_connection(address, timeout=5) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trust.wrap_bio(incoming, outgoing, server_hostname=address[0])
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        tls.write(greet(device))
        plain.sendall(outgoing.read())
        plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that no key made
        with contextlib.suppress(ConnectionError):
            while plain.recv(65536):
                pass


def test_a_client_that_resets_its_connection_does_no_harm(
    emulator: Emulator, online: Online, device: Device
) -> None:
    address = (emulator.host_name, emulator.mqtt_port)
    with socket.create_connection(address, timeout=5) as plain:
        layout = "hh" if sys.platform == "win32" else "ii"
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
        plain.sendall(b"\x16\x03\x01")
    online(device).expect_nothing()


def _tls_objects() -> int:
    """Count the emulator's ends of TLS connections; a client's are sockets."""
    return sum(type(each) is ssl.SSLObject for each in gc.get_objects())


@pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="asyncio's own TLS is a circle by itself"
)
def test_an_ended_connection_waits_for_no_garbage_collector(
    dial: Dial, online: Online, device: Device
) -> None:
    gc.collect()
    before = _tls_objects()
    gc.disable()
    try:
        for last in (b"", raw.DISCONNECT, b"\xff\xff") * 3:
            for wire in (online(device, _METHODS), dial()):
                wire.send(last)
                wire.close()
        wait_until(lambda: _tls_objects() <= before)
    finally:
        gc.enable()


# --- pace


def test_a_busy_device_does_not_hold_up_another(
    online: Online, device: Device, other_device: Device
) -> None:
    wire, other = online(device, _TWIN_ANSWERS), online(other_device, _TWIN_ANSWERS)
    wire.send(raw.publish(f"devices/{device.id}/messages/events/", bytes(200)) * 5000)
    other.send(raw.publish("$iothub/twin/GET/?$rid=1"))
    other.expect_publish("$iothub/twin/res/200/?$rid=1")
    wire.expect_nothing()


@pytest.fixture
def deaf(dial: Dial, greet: Greet, device: Device) -> Callable[[str], Wire]:
    """Connects a device that takes few bytes at a time."""

    def start(topic_filter: str) -> Wire:
        wire = dial(receive_buffer=4096)
        wire.begin(greet(device), topic_filter)
        return wire

    return start


_VALUES = {f"key{number}": "x" * 4000 for number in range(7)}


def test_messages_for_a_device_that_does_not_read_them_stay_in_their_queue(
    deaf: Callable[[str], Wire], service: Service, device: Device
) -> None:
    deaf(f"devices/{device.id}/messages/devicebound/#")
    path = f"/_emulator/devices/{device.id}/messages"
    # What the hub may hold, what the systems between hold, and the queue.
    most = (limits.MQTT_WRITE_BUFFER_BYTES + 8 * 1024 * 1024) // 60_000 + limits.C2D_QUEUE_DEPTH
    for _ in range(most):
        answer = service.request("POST", path, json={"body": "x" * 60_000})
        if answer.status_code != 204:
            break
    assert answer.headers["iothub-errorcode"] == "DeviceMaximumQueueDepthExceeded"
    document = service.request("GET", f"/devices/{device.id}").json()
    assert document["connectionState"] == "Connected"
    assert document["cloudToDeviceMessageCount"] == limits.C2D_QUEUE_DEPTH


def test_a_device_that_reads_late_still_gets_all_its_answers(
    deaf: Callable[[str], Wire], service: Service, device: Device
) -> None:
    wire = deaf(_TWIN_ANSWERS)
    wire.send(raw.publish(f"{_REPORTED}?$rid=0", json.dumps(_VALUES).encode()))
    wire.expect_publish("$iothub/twin/res/204/?$rid=0&$version=2", b"")
    wire.send(*[raw.publish(f"$iothub/twin/GET/?$rid={number}") for number in range(100)])
    time.sleep(0.1)
    for number in range(100):
        wire.expect_publish(f"$iothub/twin/res/200/?$rid={number}")
    wire.send(raw.publish(f"devices/{device.id}/messages/events/", b"last"))
    wire.expect_nothing()
    assert bodies(service, device.id) == ["last"]
