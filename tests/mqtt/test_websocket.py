"""MQTT over WebSockets (IoT Hub docs: MQTT support; MQTT 3.1.1, section 6). Once the request is
upgraded, the bytes are those of a connection over TLS.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from emulator import Emulator
from emulator.hub.core import limits
from tests.devices import greeting
from tests.messages import read_events
from tests.mqtt import raw
from tests.mqtt import web_socket as ws
from tests.mqtt.raw import DISCONNECT, PINGREQ, PINGRESP, Greet, Invoke, Online, connack, suback
from tests.mqtt.web_socket import PATH, Frame, UpgradeRefusedError, WebSocketWire, frame
from tests.support import Device, Service, second_hub, wait_until

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"

DialWebSocket = Callable[..., WebSocketWire]
OnlineWebSocket = Callable[..., WebSocketWire]


@pytest.fixture
def dial_web_socket(emulator: Emulator, trust: ssl.SSLContext) -> Iterator[DialWebSocket]:
    with ExitStack() as wires:

        def open_wire(**options: Any) -> WebSocketWire:
            wire = WebSocketWire(emulator.host_name, emulator.https_port, trust, **options)
            return wires.enter_context(wire)

        yield open_wire


@pytest.fixture
def online_web_socket(dial_web_socket: DialWebSocket, greet: Greet) -> OnlineWebSocket:
    def connect_device(device: Device, *filters: str, **fields: Any) -> WebSocketWire:
        wire = dial_web_socket()
        wire.begin(greet(device, **fields), *filters)
        return wire

    return connect_device


# --- the upgrade


@pytest.mark.parametrize(
    "path", [PATH, f"{PATH}?iothub-no-client-cert=true", f"{PATH}?x", PATH.replace("$", "%24")]
)
def test_a_query_makes_no_difference(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device, path: str
) -> None:
    wire = dial_web_socket(path=path)  # the SDK for Java sends one without a client certificate
    wire.send(greet(device))
    wire.expect(connack(0))


def test_mqtt_may_be_one_subprotocol_among_others(
    emulator: Emulator, trust: ssl.SSLContext
) -> None:
    connection = http.client.HTTPSConnection(
        emulator.host_name, emulator.https_port, timeout=raw.PATIENCE, context=trust
    )
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "unknown, mqtt",
    }
    connection.request("GET", PATH, headers=headers)
    response = connection.getresponse()
    connection.close()
    assert (response.status, response.headers["Sec-WebSocket-Protocol"]) == (101, "mqtt")


@pytest.mark.parametrize("subprotocol", [None, "unknown", "MQTT", "mqttv3.1"])
def test_a_request_without_the_subprotocol_mqtt_is_refused(
    dial_web_socket: DialWebSocket, subprotocol: str | None
) -> None:
    with pytest.raises(UpgradeRefusedError, match=" 400 "):
        dial_web_socket(subprotocol=subprotocol)


def test_a_plain_request_is_refused(service: Service) -> None:
    answer = service.request("GET", PATH)
    assert (answer.status_code, "Use a WebSocket" in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["/iothub/websocket", f"{PATH}/more"])
def test_another_path_is_not_found(dial_web_socket: DialWebSocket, path: str) -> None:
    with pytest.raises(UpgradeRefusedError, match=" 404 "):
        dial_web_socket(path=path)


# --- frames and packets


def test_packets_pass_both_ways(
    online_web_socket: OnlineWebSocket, invoke: Invoke, service: Service, device: Device
) -> None:
    wire = online_web_socket(device, _METHODS)
    call = invoke(device, "reboot", {"in": 5})
    request_id = wire.expect_method("reboot", {"in": 5})
    wire.send(raw.publish(f"$iothub/methods/res/202/?$rid={request_id}", b'"soon"'))
    assert call.result().json() == {"status": 202, "payload": "soon"}
    topic = f"devices/{device.id}/messages/events/$.ct=text%2Fplain&n=1"
    body = b"x" * (256 * 1024 - 100)  # as large as may be
    wire.send(raw.publish(topic, body, packet_id=1))
    wire.expect(raw.puback(1))
    [event] = read_events(service, device.id)
    assert (event["body"], event["properties"]) == (body.decode(), {"n": "1"})


def test_a_packet_may_come_in_many_frames(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device
) -> None:
    wire = dial_web_socket()
    for byte in greet(device):
        wire.send(bytes([byte]))
    wire.send(b"")  # an empty frame is nothing
    wire.expect(connack(0))
    wire.expect_nothing()


def test_a_frame_may_hold_many_packets_and_the_first_part_of_another(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device
) -> None:
    wire = dial_web_socket()
    get = raw.publish("$iothub/twin/GET/?$rid=1")
    wire.send(greet(device), raw.subscribe(1, _TWIN_ANSWERS), PINGREQ, get[:5])
    wire.expect(connack(0), suback(1, 0), PINGRESP)
    wire.send(get[5:], PINGREQ)
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    wire.expect(PINGRESP)


def test_a_message_may_come_in_fragments(
    online_web_socket: OnlineWebSocket, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send_bytes(
        frame(PINGREQ[:1], final=False)
        + frame(b"in between", ws.PING)
        + frame(b"", ws.CONTINUATION, final=False)
        + frame(PINGREQ[1:], ws.CONTINUATION)
    )
    assert wire.receive_frame() == Frame(ws.PONG, b"in between")
    assert wire.receive_frame() == Frame(ws.BINARY, PINGRESP)


@pytest.mark.parametrize(
    "data",
    [
        frame(bytes(limits.MQTT_CONNECT_BYTES + 1)),
        frame(bytes(20_000), final=False) + frame(bytes(20_000), ws.CONTINUATION),
        b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4),
        b"\x82\xfe\xff\xff" + bytes(4),
    ],
    ids=["a frame", "two fragments", "a header that announces exabytes", "one with 64 KB"],
)
def test_a_message_before_the_connect_is_small(dial_web_socket: DialWebSocket, data: bytes) -> None:
    wire = dial_web_socket()
    wire.send_bytes(data)
    wire.expect_closed()
    assert wire.close_code == ws.TOO_BIG


# --- web pages


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://{host}", "https://{host}:1", "null", "", "\udcff"]
)
def test_a_page_of_another_origin_is_refused(
    emulator: Emulator, dial_web_socket: DialWebSocket, origin: str
) -> None:
    field = f"Origin: {origin.format(host=emulator.host_name)}"
    with pytest.raises(UpgradeRefusedError, match=" 403 "):
        dial_web_socket(fields=(field,))


@pytest.mark.parametrize("origin", ["https://{host}", "HTTPS://{host}", "wss://{host}"])
def test_a_page_of_the_hub_and_paho_are_accepted(
    emulator: Emulator,
    dial_web_socket: DialWebSocket,
    greet: Greet,
    device: Device,
    origin: str,
) -> None:
    wire = dial_web_socket(fields=(f"Origin: {origin.format(host=emulator.https_host)}",))
    wire.send(greet(device))
    wire.expect(connack(0))


# --- how it ends


def test_a_disconnect_ends_the_connection_with_a_close_frame(
    online_web_socket: OnlineWebSocket, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send(PINGREQ, DISCONNECT)
    wire.expect(PINGRESP)
    wire.expect_closed()
    assert wire.close_code == ws.NORMAL


def test_a_close_frame_is_answered(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send_bytes(frame(ws.NORMAL.to_bytes(2, "big"), ws.CLOSE))
    wire.expect_closed()
    assert wire.close_code == ws.NORMAL
    assert wire.receive_frame() is None
    wait_until(lambda: service.state(device.id) == "Disconnected")


def test_a_refused_device_gets_its_connack_and_the_end(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device
) -> None:
    wire = dial_web_socket()
    wire.send(greet(device._replace(key="A" * 43 + "=")))
    wire.expect(connack(5))
    wire.expect_closed()


_INVALID = {
    "a text frame": frame(PINGREQ, ws.TEXT),
    "text that is not UTF-8": frame("ä".encode()[:1], ws.TEXT),
    "an unknown opcode": frame(PINGREQ, 0x3),
    "a continuation of nothing": frame(PINGREQ, ws.CONTINUATION),
    "a reserved bit": b"\xc2" + frame(PINGREQ)[1:],
    "a ping of 126 bytes": frame(bytes(126), ws.PING),
    "no MQTT": frame(b"\xf0\x00"),
    "no mask": b"\x82\x02" + PINGREQ,
    "no mask, and empty": b"\x82\x00",
    "no mask, and a ping": b"\x89\x00",
    "no mask, and long": b"\x82\x7e\x03\xe8" + PINGREQ * 500,
}


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("data", _INVALID.values(), ids=_INVALID)
def test_an_invalid_frame_ends_the_connection(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device, data: bytes, connected: bool
) -> None:
    wire = dial_web_socket()
    if connected:
        wire.send(greet(device))
        wire.expect(connack(0))
    wire.send_bytes(data)
    wire.expect_closed()


@pytest.mark.parametrize(
    "data",
    [
        frame(bytes(1_000_000)),
        b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4),
        frame(bytes(200_000), final=False) + frame(bytes(200_000), ws.CONTINUATION),
    ],
    ids=["a frame of a megabyte", "one that announces exabytes", "two fragments of 200 KB"],
)
def test_a_frame_above_the_limit_ends_the_connection(
    online_web_socket: OnlineWebSocket, device: Device, data: bytes
) -> None:
    # No packet may be above 320 KB; see limits.py.
    wire = online_web_socket(device)
    try:
        wire.send_bytes(data)
    except OSError:
        return  # cut off before all of it was sent
    wire.expect_closed()
    assert wire.close_code in (ws.TOO_BIG, None)


def test_a_broken_connection_leaves_the_will(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    online_web_socket(device, will=(f"devices/{device.id}/messages/events/", b"gone")).close()
    wait_until(lambda: service.state(device.id) == "Disconnected")
    [event] = read_events(service, device.id)
    assert event["properties"] == {"iothub-MessageType": "Will"}


def test_a_device_has_one_connection_of_either_kind(
    online: Online, online_web_socket: OnlineWebSocket, device: Device
) -> None:
    first = online(device, _METHODS, clean=False)
    second = online_web_socket(device, _DESIRED)
    first.expect_closed()
    third = online_web_socket(device, _DESIRED)
    second.expect_closed()
    fourth = online(device, _METHODS)
    third.expect_closed()
    fourth.expect_nothing()


# --- devices that do not read


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub holds less for a device that does not read, so that the tests are quick."""
    monkeypatch.setattr(limits, "MQTT_WRITE_BUFFER_BYTES", 128 * 1024)


def _stop_reading(wire: WebSocketWire, service: Service, device: Device) -> None:
    """Let the hub send more than it holds for a device, and than the systems' buffers hold."""
    for number in range(400):
        if number % 10 == 0 and service.state(device.id) == "Disconnected":
            return
        body = {"properties": {"desired": {f"p{n}": f"{number}{'x' * 3500}" for n in range(8)}}}
        assert service.request("PATCH", f"/twins/{device.id}", json=body).status_code == 200
    raise AssertionError("12 MB are on their way to a device that does not read")


@pytest.mark.usefixtures("small_buffer")
def test_a_device_that_does_not_read_is_cut_off_and_can_connect_again(
    dial_web_socket: DialWebSocket,
    greet: Greet,
    online_web_socket: OnlineWebSocket,
    service: Service,
    device: Device,
) -> None:
    wire = dial_web_socket(receive_buffer=4096)
    will = (f"devices/{device.id}/messages/events/", b"gone")
    wire.begin(greet(device, will=will), _DESIRED)
    _stop_reading(wire, service, device)
    # The will is left when the connection has ended, not when the hub stops reading.
    wait_until(lambda: read_events(service, device.id))
    online_web_socket(device).expect_nothing()
    # What is left to read is what the systems hold, and it has an end.
    deadline = time.monotonic() + raw.PATIENCE
    while wire.receive_frame() is not None:
        assert time.monotonic() < deadline


# --- the end of the emulator


# How long an emulator may take to stop, whatever its clients do.
_STOP_SECONDS = 2.5


def _do_nothing(_: WebSocketWire, __: Service, ___: Device) -> None:
    pass


@pytest.mark.usefixtures("small_buffer")
@pytest.mark.parametrize(
    ("greeted", "prepare"),
    [(False, _do_nothing), (True, _do_nothing), (True, _stop_reading)],
    ids=["before its CONNECT", "connected", "that does not read"],
)
def test_an_emulator_that_stops_ends_the_connection_of_a_device(
    emulator: Emulator,
    trust: ssl.SSLContext,
    greeted: bool,
    prepare: Callable[[WebSocketWire, Service, Device], None],
) -> None:
    with ExitStack() as stack:
        with second_hub(emulator) as short_lived:
            device = Device.of(short_lived.register_device("d"))
            host, port = short_lived.host_name, short_lived.https_port
            wire = stack.enter_context(WebSocketWire(host, port, trust, receive_buffer=4096))
            service = stack.enter_context(Service(short_lived))
            if greeted:
                wire.begin(greeting(host, "d", device.key), _DESIRED)
            prepare(wire, service, device)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < _STOP_SECONDS
        if prepare is _do_nothing:
            wire.expect_closed()
