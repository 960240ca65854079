"""Two bare servers: the least that an answer costs in Python.

    python -m benchmarks.bare hello|nod HOST PORT CERTIFICATE

Both have the event loop and the TLS settings of the emulator. `hello` speaks HTTPS: it reads the
body of a request and returns a few bytes of JSON. `nod` speaks MQTT: it takes each read for one
packet and acknowledges it unread. Its clients wait for each answer, so each read is one packet.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

from aiohttp import web

from benchmarks import mqtt

try:
    from uvloop import run
except ImportError:
    from asyncio import run  # type: ignore[assignment]

_CONNECT, _SUBSCRIBE, _PUBLISH = 0x10, 0x82, 0x32

_buffer = memoryview(bytearray(64 * 1024))


class Nod(asyncio.BufferedProtocol):
    """One connection; all connections share one buffer, as in the emulator."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._write = cast("asyncio.Transport", transport).write

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        first_byte = _buffer[0]
        if first_byte == _PUBLISH:
            topic = 2 + (_buffer[1] >> 7)  # after a length of one byte or two
            packet_id = topic + 2 + (_buffer[topic] << 8 | _buffer[topic + 1])
            self._write(b"\x40\x02" + _buffer[packet_id : packet_id + 2])
        elif first_byte == _CONNECT:
            self._write(mqtt.CONNACK)
        elif first_byte == _SUBSCRIBE:
            self._write(mqtt.suback(mqtt.FILTERS))


async def _hello(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b'"hello"', content_type="application/json")


async def serve(name: str, host: str, port: str, certificate: str) -> None:
    """Serve until the process ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 1
    context.load_cert_chain(certificate)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    protocol = Nod if name == "nod" else cast("web.Server", runner.server)
    loop = asyncio.get_running_loop()
    await loop.create_server(protocol, host, int(port), ssl=context, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve(*sys.argv[1:]))
