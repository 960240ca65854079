"""Byte streams in the binary frames of WebSockets, and the HTTP handler that upgrades a request.

All of aiohttp's WebSockets that the emulator uses is here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import WSMsgType
from aiohttp.web_exceptions import HTTPBadRequest
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import StreamResponse
from aiohttp.web_ws import WebSocketResponse

from emulator.net.streams import CLOSE_SECONDS, Stream

Serve = Callable[[Stream], Awaitable[None]]

# How much waits for a peer that is too slow.
_FULL_BYTES = 64 * 1024

# How many frames are taken before other connections have their turn.
_TURN = 128


class WebSocketStream(Stream):
    """A connection over a WebSocket."""

    def __init__(self, socket: WebSocketResponse, transport: asyncio.Transport | None) -> None:
        super().__init__(transport)
        self._socket = socket
        self._transport = transport
        self._outgoing = bytearray()
        self._frames = 0
        self._sender: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """Read the next frame; empty at the end. A frame that is not binary ends the connection."""
        while True:
            frame = await self._socket.receive()
            self._frames += 1
            if self._frames % _TURN == 0:
                await asyncio.sleep(0)  # frames that have arrived already come without a pause
            if frame.type is WSMsgType.PING:
                await self._socket.pong(frame.data)
            elif frame.type not in (WSMsgType.BINARY, WSMsgType.PONG):
                return b""
            elif frame.type is WSMsgType.BINARY and frame.data:  # a frame may be empty
                return bytes(frame.data)

    def unsent(self) -> int:
        """See `Stream.unsent`."""
        return self.held + len(self._outgoing)

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

    async def _sent(self) -> None:
        if self._sender is not None:
            await self._sender

    def _close(self) -> None:
        if self._closer is None:
            self._closer = asyncio.ensure_future(self._send_close())
            if self._transport is not None:
                asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    async def _send_close(self) -> None:
        await self._sent()
        await self._socket.close()

    async def wait_closed(self) -> None:
        """See `Stream.wait_closed`."""
        if self._closer is not None:
            with contextlib.suppress(OSError):  # the peer was faster
                await self._closer


def upgrade_handler(
    subprotocols: Mapping[str, Serve], *, max_message: int
) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """Make the HTTP handler that upgrades a request, and serves its connection until it ends.

    Args:
        subprotocols: by subprotocol, what serves such a connection.
        max_message: the largest message that a client may send, in bytes.
    """

    async def upgrade(request: BaseRequest) -> StreamResponse:
        socket = WebSocketResponse(
            protocols=tuple(subprotocols),
            max_msg_size=max_message,
            timeout=CLOSE_SECONDS,
            compress=False,
            autoping=False,  # else a flood of pings is answered where no other device has its turn
        )
        serve = subprotocols.get(socket.can_prepare(request).protocol or "")
        if serve is None:
            raise HTTPBadRequest(
                reason=f"Use a WebSocket with the subprotocol {' or '.join(subprotocols)}."
            )
        await socket.prepare(request)
        await serve(WebSocketStream(socket, request.transport))
        return socket

    return upgrade
