"""Clients that send without end, open connections without use, or never read.

The emulator is a process of its own, so that its memory and time are measured without those of the
clients. Its log is on, and has one line about each offender.
"""

from __future__ import annotations

import collections
import gzip
import re
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.util import find_spec

import psutil
import pytest

from emulator.hub.core import limits
from emulator.testing.addresses import free_loopback_address
from tests.floods import (
    ANSWER_SECONDS,
    MEGABYTES,
    SHARE_SECONDS,
    TWIN_ANSWERS,
    Flood,
    Hub,
    twin_seconds,
)
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.mqtt.web_socket import PING, WebSocketWire, frame
from tests.processes import EmulatorConsole
from tests.support import wait_until

_METHODS = "$iothub/methods/POST/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"

_CROWD = 150


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    host = free_loopback_address()
    options = ("--host", host, "--https-port", "0", "--verbose")
    folder = tmp_path_factory.mktemp("data")
    devices = ("--device", "offender", "--device", "bystander")
    with EmulatorConsole(*options, *devices, "--data-dir", folder) as console:
        running = Hub(console, host)
        yield running
        running.service.close()


@pytest.fixture(autouse=True)
def quiet_log(hub: Hub) -> Iterator[None]:
    """Nothing that clients do logs a warning, or more than one line about a connection."""
    hub.log_start += len(hub.new_log)
    yield
    hub.drop("offender")
    assert [line for line in hub.new_log if not re.search(" (INFO|DEBUG) ", line)] == []
    closed = collections.Counter(re.findall(r"the connection of (.+?): ", "\n".join(hub.new_log)))
    assert set(closed.values()) <= {1}, closed


@pytest.fixture
def bystander(hub: Hub) -> Iterator[Wire]:
    with hub.connect("bystander", TWIN_ANSWERS) as wire:
        yield wire


# --- floods


_FLOODS = {
    "telemetry": raw.publish("devices/offender/messages/events/"),
    "telemetry with QoS 1": raw.publish("devices/offender/messages/events/a=1", b"x", packet_id=1),
    "pings": raw.PINGREQ,
    "twin reads": raw.publish("$iothub/twin/GET/?$rid="),
    "reported properties": raw.publish("$iothub/twin/PATCH/properties/reported/?$rid=", b'{"a":1}'),
    "responses to no method": raw.publish("$iothub/methods/res/200/?$rid=1"),
    "PUBACKs for nothing": b"\x40\x02\x00\x01",
    "subscriptions": raw.subscribe(1, TWIN_ANSWERS, _DESIRED, _METHODS),
    "UNSUBSCRIBEs": raw.unsubscribe(1, "a"),
    "an UNSUBSCRIBE of 150 KB": raw.unsubscribe(1, *["a"] * 50_000),
    "a SUBSCRIBE of 200 KB": raw.subscribe(1, *[TWIN_ANSWERS] * 10_000),
}


_FRAMES = {
    "pings in a frame each": frame(raw.PINGREQ),
    "PUBACKs in a frame each": frame(b"\x40\x02\x00\x01"),
    "telemetry in a frame each": frame(raw.publish("devices/offender/messages/events/")),
    "empty frames": frame(b""),
    "the WebSocket's own pings": frame(b"", PING),
}


@pytest.mark.parametrize("kind", [*_FLOODS, *_FRAMES])
def test_a_flood_leaves_other_devices_their_share(hub: Hub, bystander: Wire, kind: str) -> None:
    one = (_FLOODS | _FRAMES)[kind]
    large = {"properties": {"desired": {f"p{n}": "x" * 3000 for n in range(9)}}}
    hub.service.request("PATCH", "/twins/offender", json=large)
    before = hub.megabytes
    offender = hub.connect("offender", TWIN_ANSWERS, web_socket=kind in _FRAMES)
    with Flood(offender, one * (200_000 // len(one) + 1)) as flood:
        wait_until(lambda: flood.rounds)
        seconds = [twin_seconds(hub, bystander) for _ in range(8)]
        assert hub.megabytes < before + MEGABYTES
    assert statistics.mean(seconds) < SHARE_SECONDS, seconds


def test_fifty_thousand_messages_are_all_taken_and_the_oldest_forgotten(
    hub: Hub, bystander: Wire
) -> None:
    message = raw.publish("devices/offender/messages/events/")
    with hub.connect("offender") as wire:
        for _ in range(5):
            wire.send(message * 10_000)
            wire.expect_nothing()
    assert twin_seconds(hub, bystander) < ANSWER_SECONDS
    events = hub.service.request("GET", "/_emulator/events").json()
    assert len(events) == 10_000  # see limits.py


# --- clients that never read


def test_a_device_that_never_reads_what_the_service_sends_it_is_cut_off(
    hub: Hub, bystander: Wire
) -> None:
    wire = hub.connect("offender", _DESIRED, receive_buffer=4096)
    with wire:
        for number_ in range(2000):
            desired = {f"p{n}": f"{number_}{'x' * 3500}" for n in range(8)}
            body = {"properties": {"desired": desired}}
            assert hub.service.request("PATCH", "/twins/offender", json=body).status_code == 200
            if hub.service.state("offender") == "Disconnected":
                break
        # A megabyte in the emulator (limits.py), and some that the systems' buffers take.
        assert number_ * 28_000 < 16e6
        wait_until(lambda: hub.sockets(8883) == 1, raw.PATIENCE)  # the bystander's
        assert twin_seconds(hub, bystander) < ANSWER_SECONDS


def test_a_device_that_never_reads_its_answers_is_read_no_further(
    hub: Hub, bystander: Wire
) -> None:
    wire = hub.connect("offender", TWIN_ANSWERS, receive_buffer=4096, keep_alive=1)
    with wire:
        wire.send_what_goes(raw.publish("$iothub/twin/GET/?$rid=1") * 500_000)
        # So it is silent, for the hub, and its keep-alive lapses.
        wait_until(lambda: hub.sockets(8883) == 1, raw.PATIENCE)
        assert twin_seconds(hub, bystander) < ANSWER_SECONDS


# --- clients that connect, and no more


def _plain(hub: Hub, port: int) -> socket.socket:
    return socket.create_connection((hub.host, port), timeout=raw.PATIENCE)


def _half_a_hello(hub: Hub, port: int) -> socket.socket:
    plain = _plain(hub, port)
    plain.sendall(_hello(hub)[:-100])
    return plain


def _half_a_handshake(hub: Hub, port: int) -> socket.socket:
    plain = _plain(hub, port)
    plain.sendall(_hello(hub))
    assert plain.recv(1) == b"\x16"  # its own part of the handshake
    return plain


def _hello(hub: Hub) -> bytes:
    """A client's first bytes in TLS."""
    outgoing = ssl.MemoryBIO()
    tls = hub.trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=hub.host)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _tls(hub: Hub, port: int) -> socket.socket:
    return hub.trust.wrap_socket(_plain(hub, port), server_hostname=hub.host)


def _half_a_connect(hub: Hub, port: int) -> socket.socket:
    connection = _tls(hub, port)
    connection.sendall(b"\x10\xff\x7f\x00\x04MQ" if port == 8883 else b"GET / HTTP/1.1\r\nHost:")
    return connection


_CROWDS = {
    "TCP and nothing more": _plain,
    "half a ClientHello": _half_a_hello,
    "half a handshake": _half_a_handshake,
    "TLS and nothing more": _tls,
    "the first bytes of a request": _half_a_connect,
}


@pytest.mark.parametrize("head", ["MQTT", "HTTPS"])
@pytest.mark.parametrize("kind", _CROWDS)
def test_a_crowd_of_idle_clients_leaves_room_for_a_device(hub: Hub, kind: str, head: str) -> None:
    port = 8883 if head == "MQTT" else hub.https_port
    before = hub.megabytes
    with ExitStack() as crowd:
        for _ in range(_CROWD):
            crowd.enter_context(_CROWDS[kind](hub, port))
        with hub.connect("bystander", TWIN_ANSWERS) as wire:
            assert twin_seconds(hub, wire) < ANSWER_SECONDS
        assert hub.service.request("GET", "/devices/bystander").status_code == 200
        assert hub.megabytes < before + MEGABYTES
    wait_until(
        lambda: hub.sockets(port) <= 1, raw.PATIENCE
    )  # requests keeps one for the next request


def test_web_sockets_without_a_connect_leave_room_for_a_device(hub: Hub) -> None:
    before = hub.megabytes
    with ExitStack() as crowd:
        for _ in range(100):
            wire = crowd.enter_context(WebSocketWire(hub.host, hub.https_port, hub.trust))
            wire.send_bytes(frame(b"\x10\x7f\x00\x04MQ"))
        with hub.connect("bystander", TWIN_ANSWERS) as wire:
            assert twin_seconds(hub, wire) < ANSWER_SECONDS
        assert hub.megabytes < before + MEGABYTES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets another process's limits")
def test_a_crowd_that_takes_every_file_does_no_harm_once_it_is_gone(hub: Hub) -> None:
    with ExitStack() as stack:
        usual = hub.process.rlimit(psutil.RLIMIT_NOFILE)
        stack.callback(hub.process.rlimit, psutil.RLIMIT_NOFILE, usual)
        hub.process.rlimit(psutil.RLIMIT_NOFILE, (100, usual[1]))
        with ExitStack() as crowd:
            for _ in range(_CROWD):
                crowd.enter_context(_plain(hub, 8883))
        wait_until(lambda: hub.sockets(8883) == 0, raw.PATIENCE)
        with hub.connect("bystander", TWIN_ANSWERS) as wire:
            assert twin_seconds(hub, wire) < ANSWER_SECONDS


# --- clients before authentication: what each of them, or all of them, may take


def _unfinished_connect(size: int) -> bytes:
    """The first bytes of a CONNECT, without its last one."""
    packet = raw.packet(0x10, b"\x00\x04MQTT\x04\xc2\x00\x3c" + bytes(size - 10))
    return packet[:-1]


def _unfinished_frame(size: int) -> bytes:
    return frame(_unfinished_connect(size))[:-1]


@pytest.mark.skipif(find_spec("uvloop") is None, reason="asyncio's own TLS has larger buffers")
@pytest.mark.parametrize("web_socket", [False, True], ids=["TLS", "WebSocket"])
def test_an_unfinished_connect_takes_little_memory(hub: Hub, web_socket: bool) -> None:
    count = 200
    before = hub.megabytes
    with ExitStack() as crowd:
        for _ in range(count):
            if web_socket:
                wire = crowd.enter_context(WebSocketWire(hub.host, hub.https_port, hub.trust))
                wire.send_bytes(_unfinished_frame(limits.MQTT_CONNECT_BYTES - 10))
            else:
                plain = crowd.enter_context(Wire(hub.address, hub.trust))
                plain.send(_unfinished_connect(limits.MQTT_CONNECT_BYTES))
        with hub.connect("bystander", TWIN_ANSWERS) as device:
            assert twin_seconds(hub, device) < ANSWER_SECONDS
        assert (hub.megabytes - before) / count < 0.12  # with what TLS takes, 0.05


@pytest.mark.parametrize("size", [1, 10_000, 1_000_000, 268_435_455 - limits.MQTT_CONNECT_BYTES])
def test_a_connect_that_is_too_large_is_refused_at_once(hub: Hub, size: int) -> None:
    header = raw.packet(0x10, b"")[:1] + _length(limits.MQTT_CONNECT_BYTES + size)
    with Wire(hub.address, hub.trust) as wire:
        wire.send(header + b"\x00\x04MQTT\x04")
        wire.expect_closed()


def _length(size: int) -> bytes:
    """A remaining length (MQTT 3.1.1, 2.2.3)."""
    digits = [size >> shift & 0x7F for shift in (0, 7, 14, 21)]
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])


_LONG = {
    "characters": "/" + "a" * 8_000,
    "slashes": "/a" * 4_000,
    "escapes": "/" + "%F0%9F%98%80" * 660,
    "as long as is remembered": "/devices/" + "a" * 1_000,
    "slashes, as long as is remembered": "/a" * 500,
}


def test_many_long_paths_take_little_memory(hub: Hub) -> None:
    hub.service.request("GET", "/devices/bystander")
    before = hub.megabytes
    for path in _LONG.values():
        for number in range(1_100):
            answer = hub.service.request("GET", f"{path}{number}", params={})
            assert answer.status_code in (400, 404)
    assert hub.megabytes < before + 40


def test_headers_without_end_take_little_memory(hub: Hub) -> None:
    field = b"X: " + b"y" * 8_000 + b"\r\n"
    before = hub.megabytes
    with ExitStack() as crowd:
        for _ in range(100):
            client = crowd.enter_context(_tls(hub, hub.https_port))
            with suppress(ConnectionError, ssl.SSLError):
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + field * 120)
        assert hub.service.request("GET", "/devices/bystander").status_code == 200
        assert hub.megabytes < before + 30
    hub.log_start += len(hub.new_log)


def test_bodies_that_are_refused_are_not_inflated(hub: Hub, bystander: Wire) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    before = hub.process.cpu_times()
    for path, status in (("/nothing", 404), ("/devices", 401), ("/twins/d/methods", 401)):
        headers: dict[str, str | None] = {"Content-Encoding": "gzip"}
        if status == 401:
            headers["Authorization"] = None
        answer = hub.service.request("POST", path, data=bomb, headers=headers)
        assert answer.status_code == status
        assert twin_seconds(hub, bystander) < ANSWER_SECONDS
    after = hub.process.cpu_times()
    assert after.user + after.system - before.user - before.system < 1.5  # inflated: 2 s and more


_MANY_NUMBERS = b"[" + b"0.1000000," * 200_000 + b"1]"
_BODIES: dict[str, tuple[bytes, dict[str, str | None]]] = {
    "numbers": (_MANY_NUMBERS, {}),
    "numbers, compressed": (gzip.compress(_MANY_NUMBERS), {"Content-Encoding": "gzip"}),
    "blanks, compressed": (gzip.compress(b" " * 4_000_000, 9), {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", _BODIES)
def test_large_bodies_at_once_leave_a_device_its_share(
    hub: Hub, bystander: Wire, kind: str
) -> None:
    data, headers = _BODIES[kind]

    def ask(_: int) -> int:
        return hub.service.request("POST", "/devices/query", data=data, headers=headers).status_code

    with ThreadPoolExecutor(24) as services:
        answers = [services.submit(ask, number) for number in range(24)]
        waits = []
        while not all(each.done() for each in answers):
            waits.append(twin_seconds(hub, bystander))
            time.sleep(0.01)
        assert {each.result() for each in answers} == {400}
    assert statistics.median(waits) < 0.05
    assert max(waits) < SHARE_SECONDS


# --- the log


def test_the_log_has_one_line_about_connections_that_were_closed_for_one_reason(hub: Hub) -> None:
    for _ in range(3):
        with hub.connect("offender") as wire:
            wire.send_what_goes(b"\xf0\x00" * 10_000)
            wire.expect_closed()
        with Wire(hub.address, hub.trust) as wire:
            wire.send_what_goes(b"\xf0\x00" * 10_000)
            wire.expect_closed()
    assert hub.service.request("GET", "/devices/bystander").status_code == 200
    wait_until(lambda: any("GET '/devices/bystander'" in line for line in hub.new_log))
    assert sum("Closed the connection of" in line for line in hub.new_log) < 6  # ten seconds apart


def test_port_scanners_leave_no_line_in_the_log(hub: Hub) -> None:
    for open_one in _CROWDS.values():
        open_one(hub, 8883).close()
        open_one(hub, hub.https_port).close()
    with hub.connect("bystander", TWIN_ANSWERS) as wire:
        twin_seconds(hub, wire)
