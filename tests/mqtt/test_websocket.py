"""MQTT over WebSockets: a hub's second door for devices (IoT Hub docs: MQTT support; MQTT 3.1.1,
section 6). What passes through it is the same as over TLS.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from emulator import Emulator, Settings
from tests.mqtt.raw import (
    DISCONNECT,
    PATIENCE,
    PINGREQ,
    PINGRESP,
    Greet,
    Invoke,
    Online,
    connack,
    connect,
    puback,
    publish,
    published,
    suback,
    subscribe,
)
from tests.mqtt.web_socket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NORMAL,
    PATH,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    Frame,
    UpgradeRefusedError,
    WebSocketWire,
    frame,
)
from tests.support import API_VERSION, Device, Service, sas_token

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
        wire.send(greet(device, **fields))
        wire.expect(connack(0))
        if filters:
            wire.send(subscribe(1, *filters))
            wire.expect(suback(1, *[0] * len(filters)))
        return wire

    return connect_device


# --- the upgrade


@pytest.mark.parametrize(
    "path", [PATH, f"{PATH}?iothub-no-client-cert=true", f"{PATH}?x", PATH.replace("$", "%24")]
)
def test_a_query_makes_no_difference(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device, path: str
) -> None:
    wire = dial_web_socket(path=path)  # the SDK for Java says so, without a client certificate
    wire.send(greet(device))
    wire.expect(connack(0))


def test_mqtt_may_be_one_subprotocol_among_others(
    emulator: Emulator, trust: ssl.SSLContext
) -> None:
    connection = http.client.HTTPSConnection(
        emulator.host_name, emulator.https_port, timeout=PATIENCE, context=trust
    )
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "AMQPWSB10, mqtt",
    }
    connection.request("GET", PATH, headers=headers)
    response = connection.getresponse()
    connection.close()
    assert (response.status, response.headers["Sec-WebSocket-Protocol"]) == (101, "mqtt")


@pytest.mark.parametrize("subprotocol", [None, "AMQPWSB10", "MQTT", "mqttv3.1"])
def test_without_the_subprotocol_mqtt_it_is_refused(
    dial_web_socket: DialWebSocket, subprotocol: str | None
) -> None:
    with pytest.raises(UpgradeRefusedError, match=" 400 "):
        dial_web_socket(subprotocol=subprotocol)


def test_a_plain_request_is_refused(service: Service) -> None:
    assert service.request("GET", PATH).status_code == 400


@pytest.mark.parametrize("path", ["/iothub/websocket", f"{PATH}/more", "/"])
def test_another_path_is_not_found(dial_web_socket: DialWebSocket, path: str) -> None:
    with pytest.raises(UpgradeRefusedError, match=" 404 "):
        dial_web_socket(path=path)


# --- what passes


def test_a_device_reads_and_patches_its_twin(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    wire = online_web_socket(device, _TWIN_ANSWERS, _DESIRED)
    wire.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a":1}', packet_id=7))
    wire.expect(puback(7))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    service.request("PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"b": 2}}})
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=2", {"b": 2, "$version": 2}
    )
    wire.send(publish("$iothub/twin/GET/?$rid=2", b" "))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=2",
        {"desired": {"b": 2, "$version": 2}, "reported": {"a": 1, "$version": 2}},
    )


def test_a_device_answers_a_method(
    online_web_socket: OnlineWebSocket, invoke: Invoke, device: Device
) -> None:
    wire = online_web_socket(device, _METHODS)
    call = invoke(device, "reboot", {"in": 5})
    request_id = wire.expect_method("reboot", {"in": 5})
    wire.send(publish(f"$iothub/methods/res/202/?$rid={request_id}", b'"soon"'))
    assert call.result().json() == {"status": 202, "payload": "soon"}


def test_a_device_sends_telemetry_as_large_as_may_be(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    wire = online_web_socket(device)
    topic = f"devices/{device.id}/messages/events/$.ct=text%2Fplain&n=1"
    body = b"x" * (256 * 1024 - 100)
    wire.send(publish(topic, body, packet_id=1))
    wire.expect(puback(1))
    [event] = service.request("GET", f"/_emulator/events?device={device.id}", params={}).json()
    assert (event["body"], event["properties"]) == (body.decode(), {"n": "1"})


def test_a_device_receives_a_message(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send(subscribe(1, (f"devices/{device.id}/messages/devicebound/#", 1)))
    wire.expect(suback(1, 1))
    path = f"/_emulator/devices/{device.id}/messages"
    service.request("POST", path, json={"body": "hello", "properties": {"n": "1"}})
    data = wire.receive()
    topic, payload = published(data)
    assert (data[0], payload) == (0x32, b"hello")
    assert topic.startswith(f"devices/{device.id}/messages/devicebound/")
    wire.send(puback(int.from_bytes(data.partition(topic.encode())[2][:2], "big")))
    wire.expect_nothing()
    assert service.request("GET", f"/twins/{device.id}").json()["cloudToDeviceMessageCount"] == 0


# --- frames and packets


def test_a_packet_may_come_in_many_frames(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device
) -> None:
    wire = dial_web_socket()
    for byte in greet(device):
        wire.send(bytes([byte]))
    wire.expect(connack(0))


def test_a_frame_may_hold_many_packets_and_the_first_part_of_another(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device
) -> None:
    wire = dial_web_socket()
    get = publish("$iothub/twin/GET/?$rid=1")
    wire.send(greet(device), subscribe(1, _TWIN_ANSWERS), PINGREQ, get[:5])
    wire.expect(connack(0), suback(1, 0), PINGRESP)
    wire.send(get[5:], PINGREQ)
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    wire.expect(PINGRESP)


def test_an_empty_frame_is_nothing(online_web_socket: OnlineWebSocket, device: Device) -> None:
    # RFC 6455 allows it, and MQTT 3.1.1, section 6, takes any part of a packet.
    wire = online_web_socket(device)
    wire.send(b"")
    wire.expect_nothing()


def test_a_message_may_come_in_fragments(
    online_web_socket: OnlineWebSocket, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send_bytes(
        frame(PINGREQ[:1], final=False)
        + frame(b"in between", PING)
        + frame(b"", CONTINUATION, final=False)
        + frame(PINGREQ[1:], CONTINUATION)
    )
    assert wire.receive_frame() == Frame(PONG, b"in between")
    assert wire.receive_frame() == Frame(BINARY, PINGRESP)


# --- how it ends


def test_a_disconnect_ends_the_connection_with_a_goodbye(
    online_web_socket: OnlineWebSocket, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send(DISCONNECT)
    wire.expect_closed()
    assert wire.close_code == NORMAL


def test_a_client_that_says_goodbye_is_answered(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    wire = online_web_socket(device)
    wire.send_bytes(frame(NORMAL.to_bytes(2, "big"), CLOSE))
    wire.expect_closed()
    assert wire.close_code == NORMAL
    assert wire.receive_frame() is None
    _wait_until(lambda: not _connected(service, device))


def test_a_refused_device_gets_its_connack_and_the_end(
    dial_web_socket: DialWebSocket, greet: Greet, device: Device
) -> None:
    wire = dial_web_socket()
    wire.send(greet(device._replace(key="A" * 43 + "=")))
    wire.expect(connack(5))
    wire.expect_closed()


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        frame(PINGREQ, TEXT),
        frame("ä".encode()[:1], TEXT),
        frame(PINGREQ, 0x3),
        frame(PINGREQ, CONTINUATION),
        b"\xc2" + frame(PINGREQ)[1:],
        frame(bytes(126), PING),
        frame(b"\xf0\x00"),
    ],
    ids=[
        "a text frame",
        "text that is not UTF-8",
        "an unknown opcode",
        "a continuation of nothing",
        "a reserved bit",
        "a ping of 126 bytes",
        "no MQTT",
    ],
)
def test_a_frame_that_is_none_ends_the_connection(
    dial_web_socket: DialWebSocket,
    greet: Greet,
    online: Online,
    device: Device,
    other_device: Device,
    data: bytes,
    connected: bool,
) -> None:
    bystander, wire = online(other_device), dial_web_socket()
    if connected:
        wire.send(greet(device))
        wire.expect(connack(0))
    wire.send_bytes(data)
    wire.expect_closed()
    bystander.expect_nothing()


@pytest.mark.parametrize(
    "data",
    [
        frame(bytes(1_000_000)),
        b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4),
        frame(bytes(200_000), final=False) + frame(bytes(200_000), CONTINUATION),
    ],
    ids=["a frame of a megabyte", "one that announces exabytes", "two fragments of 200 KB"],
)
def test_a_frame_above_the_limit_ends_the_connection(
    online_web_socket: OnlineWebSocket, device: Device, data: bytes
) -> None:
    # No packet may be above 320 KB; see limits.py.
    wire = online_web_socket(device)
    with ExitStack() as stack:
        stack.callback(wire.close)
        try:
            wire.send_bytes(data)
        except OSError:
            return  # cut off before all of it was sent
        wire.expect_closed()
        assert wire.close_code in (TOO_BIG, None)


def test_a_device_that_vanishes_is_disconnected_and_leaves_its_will(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    topic = f"devices/{device.id}/messages/events/"
    online_web_socket(device, will=(topic, b"gone")).close()
    _wait_until(lambda: not _connected(service, device))
    [event] = service.request("GET", f"/_emulator/events?device={device.id}", params={}).json()
    assert event["properties"] == {"iothub-MessageType": "Will"}


def test_a_keep_alive_that_lapses_ends_the_connection(
    online_web_socket: OnlineWebSocket, device: Device
) -> None:
    online_web_socket(device, keep_alive=1).expect_closed()


def test_a_device_that_is_disabled_is_dropped(
    online_web_socket: OnlineWebSocket, service: Service, device: Device
) -> None:
    wire = online_web_socket(device)
    body = {"deviceId": device.id, "status": "disabled"}
    service.request("PUT", f"/devices/{device.id}", json=body, headers={"If-Match": "*"})
    wire.expect_closed()


@pytest.mark.parametrize("first", ["TLS", "WebSocket"])
@pytest.mark.parametrize("second", ["TLS", "WebSocket"])
def test_a_device_has_one_connection_of_whichever_kind(
    online: Online,
    online_web_socket: OnlineWebSocket,
    service: Service,
    device: Device,
    first: str,
    second: str,
) -> None:
    ways = {"TLS": online, "WebSocket": online_web_socket}
    older = ways[first](device, _METHODS)
    newer = ways[second](device, _DESIRED)
    older.expect_closed()
    newer.expect_nothing()
    assert _connected(service, device)


def test_subscriptions_outlive_a_change_from_one_kind_to_the_other(
    online: Online, dial_web_socket: DialWebSocket, greet: Greet, invoke: Invoke, device: Device
) -> None:
    online(device, _METHODS, clean=False).send(DISCONNECT)
    wire = dial_web_socket()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=True))
    call = invoke(device, "reboot")
    wire.send(publish(f"$iothub/methods/res/200/?$rid={wire.expect_method('reboot')}"))
    assert call.result().status_code == 200


# --- devices that don't read


def _stop_reading(wire: WebSocketWire, service: Service, device: Device) -> None:
    """Have the hub send more than it holds for a device, and than the systems' buffers take."""
    for number in range(400):
        if not _connected(service, device):
            return
        body = {"properties": {"desired": {f"p{n}": f"{number}{'x' * 3500}" for n in range(8)}}}
        assert service.request("PATCH", f"/twins/{device.id}", json=body).status_code == 200
    raise AssertionError("12 MB are on their way to a device that does not read")


def test_a_device_that_does_not_read_is_cut_off_and_can_connect_again(
    dial_web_socket: DialWebSocket,
    greet: Greet,
    online_web_socket: OnlineWebSocket,
    service: Service,
    device: Device,
) -> None:
    wire = dial_web_socket(receive_buffer=4096)
    will = (f"devices/{device.id}/messages/events/", b"gone")
    wire.send(greet(device, will=will), subscribe(1, _DESIRED))
    wire.expect(connack(0), suback(1, 0))
    _stop_reading(wire, service, device)
    # The will is left when the connection has ended, not when the hub stops listening to it.
    events = f"/_emulator/events?device={device.id}"
    _wait_until(lambda: service.request("GET", events, params={}).json())
    online_web_socket(device).expect_nothing()
    # What is left to read is what the systems hold, and it has an end.
    deadline = time.monotonic() + PATIENCE
    while wire.receive_frame() is not None:
        assert time.monotonic() < deadline


# --- the emulator's end


# How long an emulator may take to stop, whatever its clients do.
_STOP_SECONDS = 2.5


def _say_nothing(_: WebSocketWire, __: Service, ___: Device) -> None:
    pass


@pytest.mark.parametrize(
    ("greeted", "prepare"),
    [(False, _say_nothing), (True, _say_nothing), (True, _stop_reading)],
    ids=["before its CONNECT", "connected", "that does not read"],
)
def test_an_emulator_that_stops_ends_the_connection_of_a_device(
    emulator: Emulator,
    trust: ssl.SSLContext,
    greeted: bool,
    prepare: Callable[[WebSocketWire, Service, Device], None],
) -> None:
    settings = Settings(
        host=emulator.host_name,
        mqtt_port=0,
        https_port=0,
        devices=("d",),
        cert_dir=emulator.settings.cert_dir,
    )
    with ExitStack() as stack:
        with Emulator(settings) as short_lived:
            host, port = short_lived.host_name, short_lived.https_port
            wire = stack.enter_context(WebSocketWire(host, port, trust, receive_buffer=4096))
            connection_string = short_lived.device_connection_string("d")
            key = connection_string.partition(";SharedAccessKey=")[2]
            service = Service(short_lived)
            stack.callback(service.close)
            if greeted:
                token = sas_token(f"{host}/devices/d", key)
                user_name = f"{host}/d/?api-version={API_VERSION}"
                wire.send(connect("d", user_name, token), subscribe(1, _DESIRED))
                wire.expect(connack(0), suback(1, 0))
            prepare(wire, service, Device("d", key, connection_string))
            stopping = time.monotonic()
        assert time.monotonic() - stopping < _STOP_SECONDS
        if prepare is _say_nothing:
            wire.expect_closed()


# --- what the tests share


def _connected(service: Service, device: Device) -> bool:
    state = service.request("GET", f"/devices/{device.id}").json()["connectionState"]
    return bool(state == "Connected")


def _wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
