"""The upgrade to a WebSocket, and its byte stream, without a protocol above it."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp.test_utils import RawTestServer

from emulator.net.streams import Stream
from emulator.net.web_sockets import upgrade_handler


async def test_each_subprotocol_has_its_own_server() -> None:
    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            stream.write(data)

    async def greet(stream: Stream) -> None:
        stream.cork()
        stream.write(b"hel")
        stream.write(b"lo")
        assert stream.held == stream.unsent() == 5
        stream.close()  # what was written still goes out
        stream.write(b"!")
        await stream.wait_closed()

    upgrade = upgrade_handler({"echo": echo, "greeting": greet}, max_message=10)
    async with RawTestServer(upgrade) as server, aiohttp.ClientSession() as session:  # type: ignore[arg-type]
        async with session.ws_connect(server.make_url("/"), protocols=("x", "echo")) as socket:
            assert socket.protocol == "echo"
            await socket.send_bytes(b"abc")
            assert await socket.receive_bytes(timeout=5) == b"abc"
            await socket.send_bytes(bytes(11))
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        async with session.ws_connect(server.make_url("/"), protocols=("greeting",)) as socket:
            assert await socket.receive_bytes(timeout=5) == b"hello"
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        for protocols in ((), ("x",)):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(server.make_url("/"), protocols=protocols)
        async with session.get(server.make_url("/")) as answer:
            assert answer.status == 400
