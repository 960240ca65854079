"""The head on sockets: its ports, how clients come in, and how it stops."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import SplitResult, urlsplit

import pytest

from emulator import Emulator, Settings
from emulator.amqp import frame
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Close,
    Detach,
    Open,
    Source,
    Target,
)
from emulator.errors import StartError
from emulator.settings import AMQP_PORT, AMQPS_PORT
from emulator.testing.addresses import free_loopback_address
from tests.amqp.playbook import write
from tests.amqp.wire import AmqpWire
from tests.mqtt.web_socket import BINARY, UpgradeRefusedError, WebSocketWire
from tests.mqtt.web_socket import frame as ws_frame
from tests.support import Service, fields_of, sas_token, second_hub, trust, wait_until


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    with second_hub(emulator) as running:
        yield running


@pytest.fixture(scope="module")
def context(hub: Emulator) -> ssl.SSLContext:
    return trust(hub)


def owner_token(hub: Emulator) -> str:
    fields = fields_of(hub.service_connection_string)
    key, policy = fields["SharedAccessKey"], fields["SharedAccessKeyName"]
    return sas_token(hub.host_name, key, policy=policy)


def dial(hub: Emulator, port: int | None, context: ssl.SSLContext | None = None) -> AmqpWire:
    assert port
    return AmqpWire((hub.host_name, port), context)


def condition_of(close: Close) -> str | None:
    return close.error.condition if close.error else None


# --- the ways in


def test_amqp_over_tls_plain_tcp_and_on_the_https_port(
    hub: Emulator, context: ssl.SSLContext
) -> None:
    ways = ((hub.amqps_port, context), (hub.amqp_port, None), (hub.https_port, context))
    for port, tls in ways:
        with dial(hub, port, tls) as wire:
            wire.begin().put_token(owner_token(hub))
            wire.send(write(0, Attach("x", 2, SENDER, target=Target("/messages/devicebound"))))
            assert wire.take_until(Attach).target.address == "/messages/devicebound"


def test_https_works_beside_amqp_on_its_port(hub: Emulator) -> None:
    with Service(hub) as service:
        assert service.request("GET", "/devices").status_code == 200


@pytest.mark.parametrize("pieces", [1, 2, 3, 8])
def test_the_first_bytes_can_come_one_by_one(
    hub: Emulator, context: ssl.SSLContext, pieces: int
) -> None:
    with dial(hub, hub.https_port, context) as wire:
        for start in range(0, 8, 8 // pieces or 1):
            wire.send(frame.AMQP_HEADER[start : start + (8 // pieces or 1)])
            time.sleep(0.01)
        assert wire.header() == frame.AMQP_HEADER


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/$iothub/websocket", "/$servicebus/websocket"])
def test_amqp_over_web_sockets(
    hub: Emulator, context: ssl.SSLContext, path: str, slash: str
) -> None:
    with WebSocketWire(
        hub.host_name, hub.https_port, context, path=path + slash, subprotocol="AMQPWSB10"
    ) as wire:
        wire.send_bytes(ws_frame(frame.AMQP_HEADER + frame.write(0, Open("x"))))
        opcode, payload = wire.receive_frame()
        assert (opcode, payload[:8]) == (BINARY, frame.AMQP_HEADER)


def test_mqtt_is_not_spoken_where_clients_of_event_hubs_connect(
    hub: Emulator, context: ssl.SSLContext
) -> None:
    with pytest.raises(UpgradeRefusedError):
        WebSocketWire(hub.host_name, hub.https_port, context, path="/$servicebus/websocket")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP arrived at a port for AMQP: use https://{services}"),
        (b"\x10\x0c\x00\x04MQTT\x04", "MQTT arrived at a port for AMQP: use port {mqtt}"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            "TLS arrived at a port for AMQP: use port {amqps} for TLS",
        ),
        (b"AMQP\x00\x00\x09\x01", "Unknown protocol header b'AMQP"),
        (bytes(8), r"Unknown protocol header b'\x00"),
    ],
)
def test_the_log_names_another_protocol_and_its_port(
    hub: Emulator, caplog: pytest.LogCaptureFixture, data: bytes, text: str
) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    services = f"{hub.host_name}:{hub.https_port}"
    expected = text.format(services=services, mqtt=hub.mqtt_port, amqps=hub.amqps_port)
    with dial(hub, hub.amqp_port) as wire:
        wire.send(data)
        wait_until(lambda: expected in caplog.text)


def test_the_idle_time_out_is_that_of_a_real_hub(hub: Emulator) -> None:
    with dial(hub, hub.amqp_port) as wire:
        wire.send(frame.AMQP_HEADER + frame.write(0, Open("x", idle_time_out=1000)))
        wire.header()
        assert wire.take_until(Open).idle_time_out == 240_000
        began = time.monotonic()
        assert wire.take() is None  # an empty frame, each half of the client's time-out
        assert time.monotonic() - began < 10


def test_a_link_to_an_unknown_address_is_refused(hub: Emulator) -> None:
    with dial(hub, hub.amqp_port) as wire:
        wire.begin().send(write(0, Attach("x", 0, RECEIVER, source=Source("/nowhere"))))
        assert wire.take_until(Attach).source is None
        assert wire.take_until(Detach).error.condition == "amqp:not-found"


# --- where readers of events are sent


def redirect(hub: Emulator, port: int | None, context: ssl.SSLContext | None) -> SplitResult:
    """Ask the hub for the address of its endpoint."""
    with dial(hub, port, context) as wire:
        wire.begin().put_token(owner_token(hub))
        wire.send(write(0, Attach("x", 2, RECEIVER, source=Source("/messages/events"))))
        error = wire.take_until(Detach).error
        assert error.condition == "amqp:link:redirect"
        address = urlsplit(error.info["address"])
        assert (address.hostname, address.port) == (error.info["hostname"], error.info["port"])
        return address


def test_readers_are_sent_to_the_port_of_amqp(hub: Emulator, context: ssl.SSLContext) -> None:
    for port, tls in ((hub.amqps_port, context), (hub.amqp_port, None), (hub.https_port, context)):
        assert redirect(hub, port, tls).port == hub.amqps_port


def test_readers_are_sent_to_the_https_port_without_a_port_of_amqp(settings: Settings) -> None:
    with socket.create_server((settings.host, AMQPS_PORT)), Emulator(settings) as hub:
        address = redirect(hub, hub.https_port, trust(hub))
        assert address.port == hub.https_port
        with AmqpWire((str(address.hostname), address.port), trust(hub)) as wire:
            wire.begin()


# --- ports


@pytest.fixture
def settings(emulator: Emulator) -> Settings:
    """Settings with the default ports of AMQP, on an address of their own."""
    settings = emulator.settings
    return replace(settings, host=free_loopback_address(), mqtt_port=0, cert_dir=settings.cert_dir)


def test_amqp_has_its_registered_ports_by_default(settings: Settings) -> None:
    with Emulator(settings) as hub:
        assert (hub.amqps_port, hub.amqp_port) == (AMQPS_PORT, AMQP_PORT)


@pytest.mark.parametrize(
    ("port", "option"), [(AMQPS_PORT, "--amqps-port"), (AMQP_PORT, "--amqp-port")]
)
def test_a_default_port_in_use_costs_one_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture, port: int, option: str
) -> None:
    with socket.create_server((settings.host, port)), Emulator(settings) as hub:
        found = hub.amqps_port if port == AMQPS_PORT else hub.amqp_port
        other = hub.amqp_port if port == AMQPS_PORT else hub.amqps_port
        assert (found, other) == (None, AMQPS_PORT + AMQP_PORT - port)
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"Port {port} is in use on {settings.host}" in warnings[0]
    assert option in warnings[0]


@pytest.mark.parametrize("name", ["amqps_port", "amqp_port"])
def test_a_named_port_in_use_stops_the_start(settings: Settings, name: str) -> None:
    with socket.create_server((settings.host, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"Port {port} is in use"):
            Emulator(replace(settings, **{name: port})).__enter__()


@pytest.mark.parametrize(("port", "served"), [(None, False), (0, True)])
def test_plain_amqp_beyond_loopback_must_be_asked_for(
    settings: Settings, port: int | None, served: bool
) -> None:
    open_to_all = replace(settings, host="0.0.0.0", https_port=0, amqps_port=0, amqp_port=port)
    with Emulator(open_to_all) as hub:
        assert (hub.amqp_port is not None) is served
        assert hub.amqps_port


# --- the end


def test_a_stop_closes_connections_with_a_condition(emulator: Emulator) -> None:
    with ExitStack() as stack:
        with second_hub(emulator) as hub:
            context = trust(hub)
            wires = [
                stack.enter_context(dial(hub, port, tls).begin())
                for port, tls in (
                    (hub.amqp_port, None),
                    (hub.amqps_port, context),
                    (hub.https_port, context),
                )
            ]
            web_socket = WebSocketWire(
                hub.host_name, hub.https_port, context, subprotocol="AMQPWSB10"
            )
            stack.enter_context(web_socket)
            opening = frame.AMQP_HEADER + frame.write(0, Open("x"))
            web_socket.send_bytes(ws_frame(opening))
            assert web_socket.receive_frame()
            silent = stack.enter_context(dial(hub, hub.https_port, context))
            began = time.monotonic()
        assert time.monotonic() - began < 5
        for wire in wires:
            assert condition_of(wire.take_close()) == "amqp:connection:forced"
            wire.expect_end()
        last = web_socket.receive_frame()
        assert last
        assert b"amqp:connection:forced" in last.payload
        silent.expect_end()


def test_a_start_imports_no_amqp() -> None:
    program = "import sys, emulator.emulator; print([*sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "'emulator.amqp.server'" in found.stdout
    assert "'emulator.amqp.connection'" not in found.stdout
    assert "'emulator.amqp.client'" not in found.stdout
