"""Deadlines and bounds of one HTTPS connection, without TLS and with a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_response import Response

from emulator.hub.core import limits
from emulator.net.http_connection import HttpConnections, HttpRequest
from tests.clock import ManualClock

_PATIENCE = 10.0
_GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Client:
    """The client's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as one segment, and let the server take them."""
        self._writer.write(data)
        await asyncio.sleep(0.02)

    async def receive(self) -> int:
        """Receive the head and the body of an answer; return its status."""
        async with asyncio.timeout(_PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            await self._reader.readexactly(int(length or 0))
        return int(head.split(" ")[1])

    async def expect_end(self) -> None:
        """Wait until the server ends the connection, without another answer."""
        async with asyncio.timeout(_PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await self._reader.read() == b""

    @property
    def ended(self) -> bool:
        return self._reader.at_eof()


Dial = Callable[[], AbstractAsyncContextManager[Client]]
Answer = Callable[[HttpRequest], Awaitable[Response]]


async def _read(request: HttpRequest) -> Response:
    """Answer with the body of the request."""
    try:
        return Response(body=await request.read())
    except RequestPayloadError:
        return Response(status=400)


@asynccontextmanager
async def _server(clock: ManualClock, answer: Answer = _read) -> AsyncIterator[Dial]:
    loop = asyncio.get_running_loop()
    make = functools.partial(HttpRequest, loop=loop, client_max_size=2**20)
    connections = HttpConnections(answer, make, clock, lambda: Response(status=400))
    async with await loop.create_server(connections, "127.0.0.1", 0) as server:

        @asynccontextmanager
        async def dial() -> AsyncIterator[Client]:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            yield Client(reader, writer)
            writer.close()

        yield dial
        await connections.shutdown(1)


# --- the deadline

_INCOMPLETE = {
    "nothing": b"",
    "a part of the request line": b"GET /dev",
    "a part of the headers": _GET[:-2],
    "a part of a body": _POST + b"Content-Length: 10\r\n\r\n12345",
    "a part of a chunk": _CHUNKED + b"5\r\nHel",
    "a chunk of many": _CHUNKED + b"5\r\nHello\r\n",
}


@pytest.mark.parametrize("answered", [0, 1, 2])
@pytest.mark.parametrize("data", _INCOMPLETE.values(), ids=_INCOMPLETE)
async def test_an_incomplete_request_ends_its_connection_in_time(
    data: bytes, answered: int
) -> None:
    clock = ManualClock()
    async with _server(clock) as dial, dial() as client:
        await client.send(b"")
        for _ in range(answered):
            clock.advance(100)
            await client.send(_GET)
            assert await client.receive() == 200
        # One byte after the other makes no difference.
        for byte in data:
            clock.advance(100 / len(data))
            await client.send(bytes([byte]))
        clock.advance(limits.HTTP_REQUEST_TIMEOUT - 101 if data else 119)
        await client.send(b"")
        assert not client.ended
        clock.advance(2)
        await client.expect_end()


async def test_a_request_that_the_hub_works_on_has_no_deadline() -> None:
    clock, free = ManualClock(), asyncio.Event()

    async def work(request: HttpRequest) -> Response:
        await request.read()
        await free.wait()
        return Response()

    async with _server(clock, work) as dial, dial() as client:
        await client.send(_POST + b"Content-Length: 5\r\n\r\nHello")
        clock.advance(10 * limits.HTTP_REQUEST_TIMEOUT)
        free.set()
        assert await client.receive() == 200
        # The time of the next request begins with this answer.
        clock.advance(limits.HTTP_REQUEST_TIMEOUT - 1)
        await client.send(_GET)
        assert await client.receive() == 200
        clock.advance(limits.HTTP_REQUEST_TIMEOUT)
        await client.expect_end()


# --- framing

_BROKEN = {
    "more than the chunk's size": b"4\r\nHello\r\n0\r\n\r\n",
    "less than the chunk's size": b"7\r\nHello\r\n0\r\n\r\n",
    "a size that is not a number": b"x\r\nHello\r\n0\r\n\r\n",
    "a negative size": b"-1\r\n\r\n",
    "a size without an end": b"1" * 30,
    "a second chunk that is broken": b"5\r\nHello\r\n4\r\nHello\r\n0\r\n\r\n",
    "no end of a chunk": b"5\r\nHello0\r\n\r\n",
    "a bad trailer": b"5\r\nHello\r\n0\r\nbad trailer\r\n\r\n",
}


@pytest.mark.parametrize("split", [False, True], ids=["one segment", "two segments"])
@pytest.mark.parametrize("body", _BROKEN.values(), ids=_BROKEN)
async def test_a_body_in_broken_chunks_is_a_bad_request_at_once(body: bytes, split: bool) -> None:
    async with _server(ManualClock()) as dial, dial() as client:
        await client.send(_GET)
        assert await client.receive() == 200
        for segment in (_CHUNKED, body) if split else (_CHUNKED + body,):
            await client.send(segment)
        assert await client.receive() == 400
        await client.expect_end()


_LENGTHS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nHello!",
    "no number": b"Content-Length: five\r\n\r\nHello",
    "a negative number": b"Content-Length: -5\r\n\r\nHello",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown transfer encoding": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("fields", _LENGTHS.values(), ids=_LENGTHS)
async def test_a_length_that_is_invalid_is_a_bad_request_at_once(fields: bytes) -> None:
    async with _server(ManualClock()) as dial, dial() as client:
        await client.send(_POST + fields)
        assert await client.receive() == 400
        await client.expect_end()


async def test_a_broken_body_behind_another_request_ends_the_connection() -> None:
    free = asyncio.Event()

    async def work(request: HttpRequest) -> Response:
        await free.wait()
        return await _read(request)

    async with _server(ManualClock(), work) as dial, dial() as client:
        await client.send(_GET)
        await client.send(_CHUNKED)
        await client.send(b"4\r\nHello\r\n")
        free.set()
        assert await client.receive() == 200
        await client.expect_end()


@pytest.mark.parametrize(
    "body", [b"5\r\nHello\r\n0\r\n\r\n", b"0\r\n\r\n", b"1;x=y\r\na\r\n0\r\n\r\n"]
)
async def test_a_body_in_chunks_may_come_byte_by_byte(body: bytes) -> None:
    async with _server(ManualClock()) as dial, dial() as client:
        await client.send(_CHUNKED)
        for byte in body:
            await client.send(bytes([byte]))
        assert await client.receive() == 200
        await client.send(_GET)
        assert await client.receive() == 200


# --- bounds and errors


@pytest.mark.parametrize("size", [1000, 8000])
async def test_headers_without_end_end_the_connection(size: int) -> None:
    field = b"X: " + b"y" * size + b"\r\n"
    async with _server(ManualClock()) as dial, dial() as client:
        await client.send(_GET[:-2])
        await client.send(field * (limits.HTTP_HEAD_BYTES // len(field) // 2))
        assert not client.ended
        # aiohttp has a limit of its own for the number of headers: it answers 400.
        await client.send(field * (limits.HTTP_HEAD_BYTES // len(field)))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            assert await client.receive() == 400
        await client.expect_end()


async def test_a_large_body_is_no_head() -> None:
    body = b"x" * (4 * limits.HTTP_HEAD_BYTES)
    async with _server(ManualClock()) as dial, dial() as client:
        for _ in range(2):
            await client.send(_POST + b"Content-Length: %d\r\n\r\n" % len(body))
            await client.send(body)
            assert await client.receive() == 200


@pytest.mark.parametrize("late", [False, True])
async def test_an_error_of_the_emulator_is_logged(
    late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: HttpRequest) -> Response:
        if not late:
            raise KeyError("a defect")
        return Response(headers={"X": "a\nb"})  # this can't be sent

    async with _server(ManualClock(), fail) as dial, dial() as client:
        await client.send(_GET)
        if not late:
            assert await client.receive() == 500
        await client.expect_end()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01", b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
async def test_a_request_that_is_not_http_is_not_an_error_of_the_emulator(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emulator")
    async with _server(ManualClock()) as dial, dial() as client:
        await client.send(garbage)
        assert await client.receive() == 400
        await client.expect_end()
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nAuthorization: SharedAccessSignature sig=se\x01cret\r\n\r\n",
        b"\x10\x3f\x00\x04MQTT\x04\xc2SharedAccessSignature sig=secret\r\n\r\n",
    ],
)
async def test_the_log_does_not_show_a_malformed_request(
    caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    caplog.set_level(logging.INFO, "emulator")
    async with _server(ManualClock()) as dial, dial() as client:
        await client.send(data)
        assert await client.receive() == 400
    assert "Refused a request of" in caplog.text
    assert "Invalid" in caplog.text
    assert "sig=" not in caplog.text
