"""Byte streams in the binary frames of WebSockets, and the HTTP handler that upgrades a request.

All of aiohttp's WebSockets that the emulator uses is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import cast

from aiohttp import WSCloseCode, WSMsgType
from aiohttp.web_exceptions import HTTPBadRequest, HTTPForbidden
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import StreamResponse
from aiohttp.web_ws import WebSocketResponse

from emulator.net.http_connection import HttpConnection
from emulator.net.streams import CLOSE_SECONDS, Stream, reset_on_close

Serve = Callable[[Stream], Awaitable[None]]

_PORT = re.compile(r":\d+$", re.ASCII)

# How much waits for a peer that is too slow.
_FULL_BYTES = 64 * 1024

# How many frames are taken before other connections have their turn.
_TURN = 128


class WebSocketStream(Stream):
    """A connection over a WebSocket.

    Args:
        socket: the WebSocket.
        connection: the connection that was upgraded to it.
        max_message: the largest message of a client that is known, in bytes.
    """

    def __init__(
        self, socket: WebSocketResponse, connection: HttpConnection, max_message: int
    ) -> None:
        super().__init__(connection.transport)
        self._socket = socket
        self._transport = connection.transport
        self._frames = connection.frames
        self._max_message = max_message
        self._outgoing = bytearray()
        self._received = 0
        self._code: int = WSCloseCode.OK
        self._sender: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """Read the next frame; empty at the end. A frame that is not binary ends the connection."""
        while True:
            frame = await self._socket.receive()
            self._received += 1
            if self._received % _TURN == 0:
                await asyncio.sleep(0)  # frames that have arrived already come without a pause
            if frame.type is WSMsgType.PING:
                await self._socket.pong(frame.data)
            elif frame.type is WSMsgType.CLOSE:
                self._code = frame.data or self._code
                return b""
            elif frame.type not in (WSMsgType.BINARY, WSMsgType.PONG):
                return b""
            elif frame.type is WSMsgType.BINARY and frame.data:  # a frame may be empty
                return bytes(frame.data)

    def trust(self) -> None:
        """See `Stream.trust`."""
        if self._frames is not None:
            self._frames.limit = self._max_message

    def unsent(self) -> int:
        """See `Stream.unsent`."""
        return self._held_back() + len(self._outgoing)

    @property
    def is_full(self) -> bool:
        """See `Stream.is_full`."""
        return len(self._outgoing) > _FULL_BYTES

    def _send(self, data: bytes) -> None:
        if self._closer is not None:
            return
        self._outgoing += data
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send_frames())

    async def _send_frames(self) -> None:
        with contextlib.suppress(ConnectionError):  # the connection has ended: `read` returns too
            while self._outgoing:
                frame = bytes(self._outgoing)
                await self._socket.send_bytes(frame)
                del self._outgoing[: len(frame)]

    async def drain(self) -> None:
        """See `Stream.drain`."""
        if self._sender is not None:
            await self._sender

    def _close(self) -> None:
        if self._closer is None:
            self._closer = asyncio.ensure_future(self._send_close())
            if self._transport is not None:
                asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _abort(self) -> None:
        if self._transport is not None:
            reset_on_close(self._transport)
            self._transport.abort()

    async def _send_close(self) -> None:
        await self.drain()
        await self._socket.close(code=self._code)

    async def wait_closed(self) -> None:
        """See `Stream.wait_closed`."""
        if self._closer is not None:
            with contextlib.suppress(OSError):  # the peer was faster
                await self._closer


def upgrade_handler(
    subprotocols: Mapping[str, Serve], *, first_message: int, max_message: int
) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """Make the HTTP handler that upgrades a request, and serves its connection until it ends.

    Args:
        subprotocols: by subprotocol, what serves such a connection.
        first_message: the largest message that a client may send at first, in bytes.
        max_message: the largest message that it may send after `Stream.trust`.
    """

    async def upgrade(request: BaseRequest) -> StreamResponse:
        # A browser sends the origin of the page, and no page of another origin may use the hub.
        if not _is_own_page(request.headers.getall("Origin", ()), request.headers.get("Host", "")):
            raise HTTPForbidden(reason="A web page of another origin can't open a WebSocket here.")
        socket = WebSocketResponse(
            protocols=tuple(subprotocols),
            max_msg_size=max_message,
            timeout=CLOSE_SECONDS,
            compress=False,
            autoclose=False,  # it would answer every Close with code 1000
            autoping=False,  # else a flood of pings is answered where no other device has its turn
        )
        serve = subprotocols.get(_protocol(socket, request, subprotocols) or "")
        if serve is None:
            raise HTTPBadRequest(
                reason=f"Use a WebSocket with the subprotocol {' or '.join(subprotocols)}."
            )
        connection = cast("HttpConnection", request.protocol)
        connection.first_message = first_message
        await socket.prepare(request)
        await serve(WebSocketStream(socket, connection, max_message))
        return socket

    return upgrade


def _protocol(
    socket: WebSocketResponse, request: BaseRequest, known: Collection[str]
) -> str | None:
    """Return the subprotocol of a request; None if it is not a valid request for a WebSocket."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    if not any(each.strip() in known for each in offered):
        return None  # aiohttp would log a warning
    try:
        return socket.can_prepare(request).protocol
    except ValueError:  # aiohttp cannot encode a header that is not UTF-8
        return None


def _is_own_page(origins: Iterable[str], host: str) -> bool:
    """Return whether origins (RFC 6454), if there are any, are those of the hub's own pages.

    Other clients than browsers can send one as well: paho-mqtt sends the hub's.
    """
    own = _with_port(host, "443")
    for origin in origins:
        scheme, _, page = origin.partition("://")
        port = "80" if scheme.lower() in ("http", "ws") else "443"
        if _with_port(page, port) != own:
            return False
    return True


def _with_port(host: str, port: str) -> str:
    return host.lower() if _PORT.search(host) else f"{host.lower()}:{port}"
