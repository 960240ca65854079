"""One HTTPS connection: aiohttp's, with deadlines, and with bounds on what a client may send.

All private parts of aiohttp that the emulator uses are in this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import HttpVersion11
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from emulator.hub.core import limits
from emulator.hub.core.clock import TimeSource
from emulator.hub.core.printable import printable
from emulator.net.client_frames import ClientFrames
from emulator.net.streams import CLOSE_SECONDS, READ_BYTES, peer_of

log = logging.getLogger(__name__)

_SERVER_ERROR = 500
# How long a server that stops waits for the answers to open requests.
_DRAIN_SECONDS = 0.25


class HttpRequest(BaseRequest):
    """A request whose answer can get headers in one place."""

    def complete(self, response: StreamResponse) -> None:
        """Add headers to an answer, before they are sent."""

    async def invite_body(self) -> None:
        """Request the body if the client waits for this; other expectations are ignored."""
        expectation = self.headers.get("Expect", "")
        if self.version >= HttpVersion11 and expectation.lower() == "100-continue":
            await self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.writer.output_size = 0  # these bytes are not a part of the answer

    async def take_body(self) -> bytes:
        """Read the body once. aiohttp would keep it until the answer, which can take minutes."""
        try:
            return await self.read()
        finally:
            self._read_bytes = None

    async def _prepare_hook(self, response: StreamResponse) -> None:
        # aiohttp's public hook belongs to its application, which we do not use.
        self.complete(response)


class HttpConnection(RequestHandler):
    """One connection.

    A connection ends if the next complete request has not arrived within
    `limits.HTTP_REQUEST_TIMEOUT` after its beginning, or after the last answer: so an idle
    connection, slow headers and a slow body have one deadline.

    Args:
        server: aiohttp's server.
        clock: the time of the machine.
        malformed: makes the answer to a request that is not valid HTTP.
    """

    def __init__(
        self, server: Server, clock: TimeSource, malformed: Callable[[], Response], **options: Any
    ) -> None:
        super().__init__(
            server,
            access_log=None,  # type: ignore[arg-type] # aiohttp takes it as "no log"
            auto_decompress=False,  # a body is inflated when its handler reads it
            read_bufsize=READ_BYTES,
            max_line_size=limits.HTTP_LINE_BYTES,
            **options,
        )
        self.frames: ClientFrames | None = None
        """The frames of the client, after an upgrade to a WebSocket."""
        self.first_message = 0
        """The largest message that a client may send at first over a WebSocket, in bytes."""
        self._clock = clock
        self._malformed = malformed
        self._head = 0  # the bytes of a request whose head is not complete
        self._body: StreamReader | None = None  # of the last request that was parsed
        self._since = 0.0  # the client is expected to send a request, or to read an answer

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._peer = peer_of(transport)
        self._since = self._clock.monotonic()
        self._timer = self._clock.call_later(limits.HTTP_REQUEST_TIMEOUT, self._check_deadline)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._messages:
            self._head = 0
            message, body = self._messages[-1]
            if isinstance(message, _ErrInfo):
                self._end_body()
            else:
                self._body = body
        elif self._waiter is not None and not self._waiter.done():
            self._head += len(data)
            if self._head > limits.HTTP_HEAD_BYTES and self.transport is not None:
                log.info("Closed the connection of %s: the headers are too large", self._peer)
                self.transport.abort()  # a close would keep them until the client ends TLS

    # --- deadlines and bounds

    def renew_deadline(self) -> None:
        """Let the rest of a large body have the whole time of the deadline."""
        self._since = self._clock.monotonic()

    def _check_deadline(self) -> None:
        request = self._current_request
        if request is not None and request._payload.is_eof():
            left = float(limits.HTTP_REQUEST_TIMEOUT)  # the hub works on a complete request
        else:
            left = self._since + limits.HTTP_REQUEST_TIMEOUT - self._clock.monotonic()
        if left > 0:
            self._timer = self._clock.call_later(left, self._check_deadline)
        elif self.transport is not None:
            if self._head or request is not None:
                log.info("Closed the connection of %s: the request is not complete", self._peer)
            self._timer = self._clock.call_later(CLOSE_SECONDS, self.transport.abort)
            self.transport.close()

    def _end_body(self) -> None:
        """Fail a body whose framing is broken: aiohttp lets its handler wait for the rest.

        The error is an answer of its own where the head of a request is broken.
        """
        if self._body is not None and not self._body.is_eof():
            self._messages.pop()
            self._body.set_exception(RequestPayloadError("its framing is broken"))
            self._body.feed_eof()
            self.close()

    # --- what aiohttp calls

    async def finish_response(self, *arguments: Any) -> tuple[StreamResponse, bool]:
        """Send an answer, and wait for the next request: each has the time of the deadline."""
        self._since = self._clock.monotonic()
        try:
            return await super().finish_response(*arguments)
        finally:
            self._since = self._clock.monotonic()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Answer a request that is not valid HTTP: for aiohttp this is an error in the handler."""
        if status < _SERVER_ERROR:
            # The next lines of aiohttp show what has arrived: it can have a token.
            reason = str(message or exc).partition("\n")[0].rstrip(":")
            log.info("Refused a request of %s: %s", self._peer, printable(reason))
        else:
            self.log_exception("A request failed", exc_info=exc)
        response = self._malformed()
        response.set_status(status)
        response.force_close()
        return response

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        """Log an error of the emulator; not of a client that leaves, or sends a broken body."""
        error = options.get("exc_info")
        if not isinstance(error, ConnectionError | RequestPayloadError):
            log.error(*arguments, **{"exc_info": True, **options})

    def set_parser(self, parser: Any, *arguments: Any, **options: Any) -> None:
        """Pass the bytes of a WebSocket on."""
        self.frames = ClientFrames(parser, self.first_message)
        super().set_parser(cast("Any", self.frames), *arguments, **options)


class HttpConnections(Server):
    """aiohttp's server, with these connections.

    Args:
        answer: answers a request.
        make_request: makes a request, see aiohttp's `Server`.
        clock: the time of the machine.
        malformed: makes the answer to a request that is not valid HTTP.
    """

    def __init__(
        self,
        answer: Callable[[Any], Awaitable[StreamResponse]],
        make_request: Callable[..., BaseRequest],
        clock: TimeSource,
        malformed: Callable[[], Response],
    ) -> None:
        super().__init__(answer, request_factory=make_request)
        self._clock = clock
        self._malformed = malformed

    def __call__(self) -> RequestHandler:
        """Make the protocol of a new connection."""
        loop = asyncio.get_running_loop()
        return HttpConnection(self, self._clock, self._malformed, loop=loop)

    async def stop(self) -> None:
        """Answer the requests that have arrived, and close the connections."""
        transports = [connection.transport for connection in self.connections]
        await asyncio.sleep(0)  # it begins to answer requests that have arrived
        self.pre_shutdown()
        await self.shutdown(_DRAIN_SECONDS)
        for transport in transports:
            if transport is not None:
                # A close would wait for a client that does not read, or does not end TLS.
                transport.abort()
