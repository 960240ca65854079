"""Packets that are none: each closes the connection that it came on, and no other."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from emulator import Emulator
from tests.mqtt.raw import (
    PINGREQ,
    PINGRESP,
    Dial,
    Greet,
    Online,
    connack,
    connect,
    number,
    packet,
    publish,
    subscribe,
    text,
    unsubscribe,
)
from tests.support import Device

_TWIN_ANSWERS = "$iothub/twin/res/#"


@pytest.fixture(autouse=True)
def bystander_goes_on(online: Online, other_device: Device) -> Iterator[None]:
    """Another device is connected all the while, and notices nothing."""
    wire = online(other_device, _TWIN_ANSWERS)
    yield
    wire.expect_nothing()
    wire.send(publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish("$iothub/twin/res/200/?$rid=1")


# --- on a connection that is established

_EVENTS = text("devices/d/messages/events/")

_MALFORMED = {
    # MQTT 3.1.1, 2.2.1 and 2.2.2: packet types, and their flags
    "packet type 0": b"\x00\x00",
    "packet type 15": b"\xf0\x00",
    "a CONNACK from the client": b"\x20\x02\x00\x00",
    "a SUBACK from the client": b"\x90\x03\x00\x01\x00",
    "an UNSUBACK from the client": b"\xb0\x02\x00\x01",
    "a PINGRESP from the client": b"\xd0\x00",
    "a PUBREC": b"\x50\x02\x00\x01",
    "a PUBREL": b"\x62\x02\x00\x01",
    "a PUBCOMP": b"\x70\x02\x00\x01",
    "a PINGREQ with flags": b"\xc1\x00",
    "a PINGREQ with a body": b"\xc0\x01\x00",
    "a DISCONNECT with flags": b"\xe1\x00",
    "a DISCONNECT with a body": b"\xe0\x01\x00",
    "a PUBACK with flags": b"\x41\x02\x00\x01",
    "a PUBACK that is too short": b"\x40\x01\x00",
    "a PUBACK that is too long": b"\x40\x03\x00\x01\x00",
    # 2.2.3: the remaining length
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x7f",
    "a length without an end": b"\xc0" + b"\x80" * 20,
    "the largest length there is": b"\x30\xff\xff\xff\x7f",
    "a length of 1 MB": b"\x30\x80\x80\x40",
    "a length of 400 KB, and so many bytes": packet(0x30, _EVENTS + bytes(400_000)),
    # 3.3: PUBLISH
    "a PUBLISH with QoS 2": publish("devices/d/messages/events/", b"", packet_id=1, qos=2),
    "a PUBLISH with QoS 3": publish("devices/d/messages/events/", b"", packet_id=1, qos=3),
    "a PUBLISH with DUP and QoS 0": publish("devices/d/messages/events/", b"", dup=True),
    "a PUBLISH without a body": b"\x30\x00",
    "a PUBLISH with half a topic length": b"\x30\x01\x00",
    "a PUBLISH whose topic is cut off": b"\x30\x05\x00\x04abc",
    "a PUBLISH whose topic length lies": packet(0x30, b"\xff\xff" + b"a" * 100),
    "a PUBLISH without a topic": packet(0x30, text("") + b"payload"),
    "a PUBLISH without its packet id": packet(0x32, _EVENTS),
    "a PUBLISH with half a packet id": packet(0x32, _EVENTS + b"\x00"),
    "a PUBLISH with packet id 0": packet(0x32, _EVENTS + number(0)),
    "a topic that is not UTF-8": publish(b"$iothub/twin/GET/?$rid=\xff\xfe"),
    "a topic with half a character": publish("$iothub/twin/GET/?$rid=ä".encode()[:-1]),
    "a topic with a surrogate": publish(b"$iothub/twin/GET/?$rid=\xed\xa0\x80"),
    "a topic with an overlong character": publish(b"$iothub/twin/GET/?$rid=\xc0\xaf"),
    # 3.8: SUBSCRIBE
    "a SUBSCRIBE with flags 0": packet(0x80, number(1) + text(_TWIN_ANSWERS) + b"\x00"),
    "a SUBSCRIBE with flags 3": packet(0x83, number(1) + text(_TWIN_ANSWERS) + b"\x00"),
    "a SUBSCRIBE with packet id 0": subscribe(0, _TWIN_ANSWERS),
    "a SUBSCRIBE without a body": b"\x82\x00",
    "a SUBSCRIBE with half a packet id": b"\x82\x01\x00",
    "a SUBSCRIBE without filters": b"\x82\x02\x00\x01",
    "a SUBSCRIBE without a QoS": packet(0x82, number(1) + text(_TWIN_ANSWERS)),
    "a SUBSCRIBE for QoS 3": subscribe(1, (_TWIN_ANSWERS, 3)),
    "a SUBSCRIBE with reserved bits": subscribe(1, (_TWIN_ANSWERS, 0x81)),
    "a SUBSCRIBE with a byte too many": packet(
        0x82, number(1) + text(_TWIN_ANSWERS) + b"\x00" + b"\x00"
    ),
    "a SUBSCRIBE whose filter is cut off": packet(0x82, number(1) + b"\x00\x20$iothub"),
    "a SUBSCRIBE whose filter is not UTF-8": packet(0x82, number(1) + text(b"\xff\xfe") + b"\x00"),
    "a SUBSCRIBE with much that is not UTF-8": packet(
        0x82, number(1) + text(b"\xff" * 40_000) + b"\x00"
    ),
    # 3.10: UNSUBSCRIBE
    "an UNSUBSCRIBE with flags 0": packet(0xA0, number(1) + text(_TWIN_ANSWERS)),
    "an UNSUBSCRIBE with packet id 0": unsubscribe(0, _TWIN_ANSWERS),
    "an UNSUBSCRIBE without filters": b"\xa2\x02\x00\x01",
    "an UNSUBSCRIBE whose filter is cut off": packet(0xA2, number(1) + b"\x00\x20$iothub"),
    "an UNSUBSCRIBE whose filter is not UTF-8": packet(0xA2, number(1) + text(b"\xff")),
    "an UNSUBSCRIBE with much that is not UTF-8": packet(0xA2, number(1) + text(b"\xff" * 40_000)),
    # and no MQTT at all
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "AMQP": b"AMQP\x03\x01\x00\x00",
}


@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED)
def test_a_malformed_packet_ends_the_connection(
    online: Online, device: Device, data: bytes
) -> None:
    wire = online(device)
    wire.send_what_goes(data)
    wire.expect_closed()


@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED)
def test_it_may_as_well_be_the_first_packet(dial: Dial, data: bytes) -> None:
    wire = dial()
    wire.send_what_goes(data)
    wire.expect_closed()


def test_what_follows_a_malformed_packet_is_not_handled(online: Online, device: Device) -> None:
    wire = online(device)
    wire.send(PINGREQ, b"\xf0\x00", PINGREQ)
    wire.expect(PINGRESP)
    wire.expect_closed()


def test_a_packet_that_stops_halfway_is_none_yet(online: Online, device: Device) -> None:
    whole = publish("$iothub/twin/GET/?$rid=1", packet_id=1)
    wire = online(device, _TWIN_ANSWERS)
    wire.send(whole[:-1])
    wire.close()


def test_random_bytes_end_the_connection_or_wait_for_more(
    dial: Dial, greet: Greet, device: Device
) -> None:
    chance = random.Random(3)
    for length in (1, 2, 3, 10, 100, 1000, 10_000, 100_000):
        for connected in (False, True):
            with dial() as wire:
                if connected:
                    wire.send(greet(device))
                    wire.expect(connack(0))
                wire.send_what_goes(chance.randbytes(length))


# --- CONNECT

_LEVEL = text("MQTT") + b"\x04"


def _raw_connect(flags: int, *fields: bytes) -> bytes:
    return packet(0x10, _LEVEL + bytes([flags]) + number(60) + b"".join(fields))


_ID, _USER, _PASSWORD = text("d"), text("host/d/?api-version=2021-04-12"), text("secret")
_WILL = text("devices/d/messages/events/") + text(b"gone")

_MALFORMED_CONNECTS = {
    # MQTT 3.1.1, 3.1.2: the flags
    "the reserved flag": connect("d", "h/d", "p", flags=0xC3),
    "a password without a user name": connect("d", None, "p"),
    "a will QoS without a will": connect("d", "h/d", "p", flags=0xC2 | 0x08),
    "will retain without a will": connect("d", "h/d", "p", flags=0xC2 | 0x20),
    "will QoS 3": connect("d", "h/d", "p", will=("devices/d/messages/events/", b""), flags=0xDE),
    "fixed-header flags": b"\x11" + connect("d", "h/d", "p")[1:],
    "another protocol's name": connect("d", "h/d", "p", protocol="MQTTX"),
    "the name in lower case": connect("d", "h/d", "p", protocol="mqtt"),
    "no name": connect("d", "h/d", "p", protocol=""),
    # 3.1.3: what the flags announce has to be there, and nothing else
    "nothing": packet(0x10, b""),
    "half a name": packet(0x10, text("MQTT")[:4]),
    "no flags": packet(0x10, _LEVEL),
    "no keep-alive": packet(0x10, _LEVEL + b"\xc2"),
    "half a keep-alive": packet(0x10, _LEVEL + b"\xc2\x00"),
    "no client id": _raw_connect(0x02),
    "a client id that is cut off": _raw_connect(0x02, b"\x00\x09d"),
    "no user name": _raw_connect(0xC2, _ID),
    "no password": _raw_connect(0xC2, _ID, _USER),
    "a password that is cut off": _raw_connect(0xC2, _ID, _USER, b"\x00\x09s"),
    "no will": _raw_connect(0x06, _ID),
    "a will without its message": _raw_connect(0x06, _ID, text("devices/d/messages/events/")),
    "a user name that no flag announces": _raw_connect(0x02, _ID, _USER),
    "a password that no flag announces": _raw_connect(0x82, _ID, _USER, _PASSWORD),
    "a will that no flag announces": _raw_connect(0xC2, _ID, _WILL, _USER, _PASSWORD),
    "a byte too many": _raw_connect(0xC2, _ID, _USER, _PASSWORD, b"\x00"),
    "a client id that is not UTF-8": _raw_connect(0xC2, text(b"\xff"), _USER, _PASSWORD),
    "a user name that is not UTF-8": _raw_connect(0xC2, _ID, text(b"\xc3"), _PASSWORD),
    "a client id of much that is not UTF-8": _raw_connect(
        0xC2, text(b"\xff" * 40_000), _USER, _PASSWORD
    ),
    "NUL in the client id": _raw_connect(0xC2, text("d\0"), text("host/d\0/"), _PASSWORD),
}


@pytest.mark.parametrize("data", _MALFORMED_CONNECTS.values(), ids=_MALFORMED_CONNECTS)
def test_a_malformed_connect_is_closed_without_a_connack(dial: Dial, data: bytes) -> None:
    # MQTT 3.1.1, 3.1.4, point 1
    wire = dial()
    wire.send(data)
    wire.expect_closed()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=name)
        for name, data in _MALFORMED_CONNECTS.items()
        if name in ("the reserved flag", "no client id", "a byte too many", "fixed-header flags")
    ],
)
def test_a_malformed_second_connect_ends_the_connection(
    online: Online, device: Device, data: bytes
) -> None:
    wire = online(device)
    wire.send(data)
    wire.expect_closed()


# --- below MQTT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16",
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\x01\xff\xff" + b"\xff" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(10_000),
        connect("d", "h/d", "p"),
    ],
    ids=["nothing", "one byte", "a bad hello", "a long one", "HTTP", "zeros", "MQTT"],
)
def test_a_client_without_tls_gets_nowhere(emulator: Emulator, data: bytes) -> None:
    address = (emulator.host_name, emulator.mqtt_port)
    with socket.create_connection(address, timeout=5) as plain:
        plain.sendall(data)
        if len(data) > 1:
            answer = b""
            with suppress(ConnectionError):
                while received := plain.recv(4096):
                    answer += received
            assert connack(0) not in answer
            assert answer[:1] in (b"", b"\x15")  # nothing, or a TLS alert


def test_garbage_within_tls_ends_the_connection(
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
        with suppress(ConnectionError):
            while plain.recv(65536):
                pass


def test_a_client_that_resets_its_connection_does_no_harm(
    emulator: Emulator, dial: Dial, greet: Greet, device: Device
) -> None:
    address = (emulator.host_name, emulator.mqtt_port)
    with socket.create_connection(address, timeout=5) as plain:
        layout = "hh" if sys.platform == "win32" else "ii"
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
        plain.sendall(b"\x16\x03\x01")
    wire = dial()
    wire.send(greet(device))
    wire.expect(connack(0))
