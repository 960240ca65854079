"""Faults on real connections: a cut socket, a slow link, over TLS and over WebSockets."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import pytest

from emulator import Emulator
from tests.devices import greeting
from tests.messages import bodies
from tests.mqtt.raw import PATIENCE, Dial, Greet, Online, Wire, connack, puback, publish
from tests.mqtt.web_socket import WebSocketWire
from tests.support import Device, Service, wait_until

Link = Callable[[Device], Wire]


@pytest.fixture(autouse=True)
def no_faults(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.faults.clear()


@pytest.fixture(params=["tls", "web socket"])
def link(
    request: pytest.FixtureRequest, emulator: Emulator, trust: ssl.SSLContext, online: Online
) -> Iterator[Link]:
    """Connects a device, over TLS or a WebSocket."""
    wires = []

    def connect(device: Device) -> Wire:
        if request.param == "tls":
            return online(device)
        wire = WebSocketWire(emulator.host_name, emulator.https_port, trust)
        wires.append(wire)
        wire.begin(greeting(emulator.host_name, device.id, device.key))
        return wire

    yield connect
    for wire in wires:
        wire.close()


def topic(device: Device) -> str:
    return f"devices/{device.id}/messages/events/"


@pytest.mark.parametrize("how", ["clean", "cut"])
def test_a_connection_ends(
    emulator: Emulator, service: Service, link: Link, device: Device, other_device: Device, how: str
) -> None:
    wire, other = link(device), link(other_device)
    emulator.faults.add("drop-connection", device=device.id, how=how)
    wire.expect_closed()
    other.expect_nothing()
    link(device).expect_nothing()


def end_of(wire: Wire) -> int:
    """Wait for the end of a connection; return the error of its socket."""
    connection = wire._socket
    assert isinstance(connection, ssl.SSLSocket)
    connection.suppress_ragged_eofs = False
    assert select.select([connection], [], [], PATIENCE)[0]
    error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not error:
        assert connection.recv(1) == b"", "not the end of TLS"
    return error


def test_a_cut_is_a_reset_and_a_clean_end_is_the_end_of_tls(
    emulator: Emulator, online: Online, device: Device
) -> None:
    clean = online(device)
    emulator.faults.add("drop-connection", device=device.id)
    assert end_of(clean) == 0
    cut = online(device)
    emulator.faults.add("drop-connection", device=device.id, how="cut")
    assert end_of(cut) == errno.ECONNRESET


def test_a_connection_is_cut_at_a_message(
    emulator: Emulator, service: Service, link: Link, device: Device
) -> None:
    wire = link(device)
    emulator.faults.add("drop-connection", device=device.id, operation="send-event", how="cut")
    wire.send(publish(topic(device), b"lost", packet_id=1))
    wire.expect_closed()
    wait_until(lambda: emulator.faults.list() == [])
    wire = link(device)
    wire.send(publish(topic(device), b"again", packet_id=1))
    wire.expect(puback(1))
    assert bodies(service, device.id) == ["again"]


def test_a_slow_link_takes_its_time_both_ways(
    emulator: Emulator, link: Link, device: Device, other_device: Device
) -> None:
    wire, other = link(device), link(other_device)
    with emulator.faults.injected("slow-link", device=device.id, rate=4000):
        start = time.monotonic()
        wire.send(publish(topic(device), b"x" * 2000, packet_id=1))
        for _ in range(50):
            other.expect_nothing()  # the loop is not held up
        assert time.monotonic() - start < 0.5
        wire.expect(puback(1))
        assert time.monotonic() - start > 0.5
        # 250 acknowledgments have 1,000 bytes, and the messages have more.
        start = time.monotonic()
        messages = [publish(topic(device), packet_id=number + 1) for number in range(250)]
        wire.send(*messages)
        wire.expect(*(puback(number + 1) for number in range(250)))
        seconds = sum(map(len, messages)) / 4000 + 0.25
        assert seconds * 0.9 < time.monotonic() - start < seconds * 3
    start = time.monotonic()
    wire.send(publish(topic(device), b"x" * 20_000, packet_id=1))
    wire.expect(puback(1))
    assert time.monotonic() - start < 3


def test_what_a_slow_link_holds_is_sent_when_the_fault_ends(
    emulator: Emulator, link: Link, device: Device
) -> None:
    wire = link(device)
    with emulator.faults.injected("slow-link", device=device.id, rate=1):
        wire.send(publish(topic(device), packet_id=1))
        time.sleep(0.2)
    start = time.monotonic()
    wire.expect(puback(1))
    assert time.monotonic() - start < 5


def test_a_slow_connection_can_be_dropped(emulator: Emulator, link: Link, device: Device) -> None:
    wire = link(device)
    emulator.faults.add("slow-link", device=device.id, rate=1)
    wire.send(publish(topic(device), packet_id=1))
    time.sleep(0.2)
    emulator.faults.add("drop-connection", device=device.id)
    wire.expect_closed()


def test_a_device_connects_over_a_slow_link(
    emulator: Emulator, dial: Dial, greet: Greet, device: Device
) -> None:
    emulator.faults.add("slow-link", device=device.id, rate=10_000)
    wire = dial()
    wire.send(greet(device))
    wire.expect(connack(0))
    wire.expect_nothing()
