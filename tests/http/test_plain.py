"""The port without TLS: the local CA and the health check, for clients that trust nothing yet."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest
import requests

from emulator import Emulator, Settings, StartError
from emulator.amqp.server import AmqpServer
from emulator.http.plain import PlainServer
from emulator.http.responses import json_response
from emulator.hub.core import limits
from tests.clock import ManualClock
from tests.support import PATIENCE, second_hub

HEALTH = "/_emulator/health"


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    with second_hub(emulator, http_port=0) as hub:
        yield hub


def connection(hub: Emulator) -> http.client.HTTPConnection:
    assert hub.http_port is not None
    return http.client.HTTPConnection(hub.host_name, hub.http_port, timeout=PATIENCE)


def ask(hub: Emulator, verb: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    asking = connection(hub)
    asking.request(verb, path, body)
    answer = asking.getresponse()
    found = answer.status, answer.read()
    asking.close()
    return found


def dial(hub: Emulator) -> socket.socket:
    assert hub.http_port is not None
    return socket.create_connection((hub.host_name, hub.http_port), timeout=PATIENCE)


def read_to_end(client: socket.socket) -> bytes:
    """Return everything that comes until the end of the connection."""
    found = b""
    while more := client.recv(65536):
        found += more
    return found


def test_a_client_that_trusts_nothing_gets_the_ca_and_then_trusts_the_hub(hub: Emulator) -> None:
    status, pem = ask(hub, "GET", "/ca.pem")
    assert status == 200
    assert pem == hub.ca_file.read_bytes()
    context = ssl.create_default_context(cadata=pem.decode())
    secure = http.client.HTTPSConnection(hub.host_name, hub.https_port, context=context)
    secure.request("GET", HEALTH)
    assert secure.getresponse().status == 200
    secure.close()


def test_it_has_the_bundle_with_the_public_roots(hub: Emulator) -> None:
    assert ask(hub, "GET", "/ca-bundle.pem") == (200, hub.ca_bundle.read_bytes())


def test_it_shows_the_health_without_a_token(hub: Emulator) -> None:
    assert ask(hub, "GET", HEALTH) == (200, b'{"status":"healthy"}')


@pytest.mark.parametrize("path", ["/ca.pem", "/ca-bundle.pem", HEALTH])
def test_head_has_the_length_alone(hub: Emulator, path: str) -> None:
    _, body = ask(hub, "GET", path)
    asking = connection(hub)
    for _ in range(2):  # on one connection
        asking.request("HEAD", path)
        answer = asking.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.headers["Content-Length"] == str(len(body))
    asking.close()


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/ca-key.pem", "/ca.pem/", "//ca.pem", "/../ca.pem", "/server.pem"),
        *("/devices", "/_emulator/info", "/_emulator/metrics", "/_emulator/snapshot", "/_page/x"),
        *("/$iothub/websocket", "/%00", "/" + "x" * 5_000),
    ],
)
def test_it_has_nothing_else(hub: Emulator, path: str) -> None:
    for verb in ("GET", "POST", "DELETE"):
        status, body = ask(hub, verb, path)
        assert status == 404
        assert json.loads(body)["Message"] == (
            "This port has /ca.pem, /ca-bundle.pem and /_emulator/health only. Everything else is "
            f"at https://{hub.host_name}:{hub.https_port}"
        )


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_reads_only(hub: Emulator, verb: str) -> None:
    asking = connection(hub)
    asking.request(verb, "/ca.pem", b"x" * 100_000)
    answer = asking.getresponse()
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.headers["Connection"] == "close"
    message = f"The method '{verb}' is not allowed. Use GET or HEAD."
    assert json.loads(answer.read()) == {"Message": message}
    asking.close()


def test_other_protocols_get_an_error(hub: Emulator) -> None:
    for data in (
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
        b"AMQP\x00\x01\x00\x00",
        b"x\r\n",
    ):
        with dial(hub) as client:
            client.sendall(data + b"\r\n\r\n")
            answer = read_to_end(client)
        assert answer.startswith(b"HTTP/1.")
        assert b" 400 " in answer.splitlines()[0]
        assert answer.endswith(
            b'{"Message":"The request is not valid HTTP/1.1. This port has no TLS."}'
        )
    assert hub.http_port is not None
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{hub.host_name}:{hub.http_port}/ca.pem", timeout=PATIENCE)


def test_headers_that_never_end_end_the_connection(hub: Emulator) -> None:
    line, sent = b"x: " + b"y" * 1_000 + b"\r\n", 0
    with dial(hub) as client:
        client.sendall(b"GET /ca.pem HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 100 * limits.HTTP_HEAD_BYTES:
                client.sendall(line)
                sent += len(line)
    assert sent < 100 * limits.HTTP_HEAD_BYTES


async def test_a_client_that_sends_nothing_is_disconnected_in_time() -> None:
    clock = ManualClock()
    server = PlainServer(clock.machine, {"/ca.pem": b"x"}, lambda: json_response({}), "https://x")
    listener = socket.create_server(("127.0.0.1", 0))
    await server.start([listener])
    try:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET /ca.pem HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readuntil(b"\r\n\r\nx")).startswith(b"HTTP/1.1 200 OK")
        clock.advance(limits.HTTP_REQUEST_TIMEOUT - 1)
        await asyncio.sleep(0.02)
        assert not reader.at_eof()
        clock.advance(2)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
    finally:
        await server.stop()


def test_its_end_does_not_wait_for_a_client_that_does_not_read(emulator: Emulator) -> None:
    with ExitStack() as stack:
        with second_hub(emulator, http_port=0) as hub:
            assert hub.http_port is not None
            address = hub.host_name, hub.http_port
            stuck = stack.enter_context(dial(hub))
            stuck.sendall(b"GET /ca-bundle.pem HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            assert ask(hub, "GET", HEALTH)[0] == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            assert read_to_end(stuck).count(b"HTTP/1.1 200 OK") < 100


def test_it_is_off_by_default(emulator: Emulator) -> None:
    assert emulator.http_port is None
    assert "http" not in emulator._running.ports


# --- health


def test_a_hub_that_starts_or_stops_is_not_healthy(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health is asked for while the last of the heads starts, and while the first one stops."""
    found: list[tuple[int, bytes]] = []
    start, stop = AmqpServer.start, AmqpServer.stop
    with socket.create_server((emulator.host_name, 0)) as free:
        port = free.getsockname()[1]

    def read() -> None:
        asking = http.client.HTTPConnection(emulator.host_name, port, timeout=PATIENCE)
        asking.request("GET", HEALTH)
        answer = asking.getresponse()
        found.append((answer.status, answer.read()))
        asking.close()

    async def start_late(self: AmqpServer, sockets: Iterable[socket.socket]) -> None:
        await asyncio.to_thread(read)
        await start(self, sockets)

    async def stop_late(self: AmqpServer) -> None:
        await asyncio.to_thread(read)
        await stop(self)

    monkeypatch.setattr(AmqpServer, "start", start_late)
    monkeypatch.setattr(AmqpServer, "stop", stop_late)
    with second_hub(emulator, http_port=port):
        read()
    assert found == [
        (503, b'{"status":"starting"}'),
        (200, b'{"status":"healthy"}'),
        (503, b'{"status":"stopping"}'),
    ]


# --- the setting


@pytest.mark.parametrize("other", ["mqtt_port", "https_port", "amqps_port", "amqp_port"])
def test_a_port_of_another_setting_is_one_clear_line(emulator: Emulator, other: str) -> None:
    with pytest.raises(StartError) as caught, second_hub(emulator, http_port=7777, **{other: 7777}):
        pass
    said = f"Port 7777 is that of {other} already. Use another one: Settings(http_port=...)."
    assert str(caught.value) == said


def test_a_port_in_use_is_one_clear_line(emulator: Emulator) -> None:
    with socket.create_server((emulator.host_name, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught, second_hub(emulator, http_port=port):
            pass
    assert str(caught.value).startswith(f"Port {port} is in use on {emulator.host_name}. Stop the")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("port", [-1, 65536, "8080"])
def test_a_port_out_of_range_is_refused(port: object) -> None:
    with pytest.raises(StartError, match="Invalid http_port"):
        Settings(http_port=port)  # type: ignore[arg-type]
