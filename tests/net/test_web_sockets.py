"""The upgrade to a WebSocket, and its byte stream, without a protocol above it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.web_response import Response

from emulator.net.http_connection import HttpConnections, HttpRequest
from emulator.net.streams import Stream
from emulator.net.web_sockets import Serve, upgrade_handler
from tests.clock import ManualClock


@asynccontextmanager
async def _server(**subprotocols: Serve) -> AsyncIterator[str]:
    """Serve subprotocols; the URL of the server."""
    loop = asyncio.get_running_loop()
    upgrade = upgrade_handler(subprotocols, first_message=10, max_message=20)
    make = functools.partial(HttpRequest, loop=loop)
    connections = HttpConnections(upgrade, make, ManualClock(), lambda: Response(status=400))
    async with await loop.create_server(connections, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await connections.shutdown(1)


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        stream.trust()
    stream.close()
    await stream.wait_closed()


async def test_each_subprotocol_has_its_own_server() -> None:
    async def greet(stream: Stream) -> None:
        stream.write(b"hel")
        stream.write(b"lo")
        assert stream.unsent() == 5
        stream.close()  # what was written still goes out
        stream.write(b"!")
        await stream.wait_closed()

    async with _server(echo=_echo, greeting=greet) as url, aiohttp.ClientSession() as session:
        async with session.ws_connect(url, protocols=("x", "echo")) as socket:
            assert socket.protocol == "echo"
            await socket.send_bytes(b"abc")
            assert await socket.receive_bytes(timeout=5) == b"abc"
        async with session.ws_connect(url, protocols=("greeting",)) as socket:
            assert await socket.receive_bytes(timeout=5) == b"hello"
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        for protocols in ((), ("x",)):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url, protocols=protocols)
        async with session.get(url) as answer:
            assert answer.status == 400


@pytest.mark.parametrize(("before", "size"), [([], 11), ([], 1000), ([10], 21), ([1, 19], 1000)])
async def test_a_client_that_is_not_known_may_send_less(before: list[int], size: int) -> None:
    async with (
        _server(echo=_echo) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("echo",)) as socket,
    ):
        for each in before:
            await socket.send_bytes(bytes(each))
            assert await socket.receive_bytes(timeout=5) == bytes(each)
        await socket.send_bytes(bytes(size))
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


_ORIGINS = {
    "http://127.0.0.1:{port}": True,
    "https://127.0.0.1:{port}": True,
    "HTTPS://127.0.0.1:{port}": True,
    "wss://127.0.0.1:{port}": True,
    "https://127.0.0.1": False,
    "https://127.0.0.1:1": False,
    "https://localhost:{port}": False,
    "https://evil.example": False,
    "https://evil.example:{port}": False,
    "https://127.0.0.1:{port}.evil.example": False,
    "https://evil.example/127.0.0.1:{port}": False,
    "https://127.0.0.1:{port}@evil.example": False,
    "null": False,
    "": False,
    "\udcff": False,
}


@pytest.mark.parametrize(("origin", "allowed"), _ORIGINS.items())
async def test_a_page_of_another_origin_is_refused(origin: str, allowed: bool) -> None:
    async with _server(echo=_echo) as url:
        port = url.removesuffix("/").rpartition(":")[2]
        status = await _upgrade(url, f"Origin: {origin.format(port=port)}")
        assert status == (101 if allowed else 403)
        both = (f"Origin: https://127.0.0.1:{port}", "Origin: https://evil.example")
        assert await _upgrade(url, *both) == 403


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("hub.example", "https://hub.example", 101),
        ("hub.example", "https://HUB.example:443", 101),
        ("hub.example:443", "https://hub.example", 101),
        ("hub.example:80", "http://hub.example", 101),
        ("hub.example", "http://hub.example", 403),
        ("[::1]:8443", "https://[::1]:8443", 101),
        ("[::1]", "https://[::1]", 101),
        ("[::1]", "https://[::2]", 403),
    ],
)
async def test_an_origin_is_compared_by_host_and_port(host: str, origin: str, status: int) -> None:
    async with _server(echo=_echo) as url:
        assert await _upgrade(url, f"Origin: {origin}", host=host) == status


@pytest.mark.parametrize(
    "field",
    [
        *(f"{name}: \udcff" for name in ("Upgrade", "Connection", "Sec-WebSocket-Key")),
        *(f"Sec-WebSocket-{name}: \udcff" for name in ("Version", "Protocol", "Extensions")),
        *(f"Sec-WebSocket-Key: {key}" for key in ("", "a", "A" * 24, "AAAA", "=" * 24)),
        *("Upgrade: h2c", "Connection: close", "Sec-WebSocket-Version: 1", "Cookie: \udcff"),
    ],
)
async def test_no_upgrade_makes_the_hub_fail(field: str, caplog: pytest.LogCaptureFixture) -> None:
    name = field.partition(":")[0]
    async with _server(echo=_echo) as url:
        # What an upgrade needs twice, and in place of the valid header.
        for without in ("", name):
            assert await _upgrade(url, field, without=without) in (101, 400)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def _upgrade(url: str, *fields: str, host: str = "", without: str = "") -> int:
    """Ask for a WebSocket; return the status."""
    address, _, port = url.removeprefix("http://").removesuffix("/").partition(":")
    lines = [
        "GET / HTTP/1.1",
        f"Host: {host or f'{address}:{port}'}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: echo",
    ]
    lines = [each for each in lines if not without or not each.startswith(f"{without}:")]
    reader, writer = await asyncio.open_connection(address, int(port))
    async with asyncio.timeout(10):
        writer.write("\r\n".join([*lines, *fields, "", ""]).encode(errors="surrogateescape"))
        status = await reader.readline()
    writer.close()
    return int(status.split(b" ")[1])
