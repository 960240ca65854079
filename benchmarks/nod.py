"""A bare MQTT server: the least that an acknowledgement over TLS costs in Python.

    python -m benchmarks.nod HOST FOLDER

It has the emulator's event loop, TLS settings and certificate, takes each read for one packet, as
it is from clients that wait for each answer, and nods: CONNACK, SUBACK, PUBACK, and nothing else.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from benchmarks import mqtt
from emulator.event_loop import run
from emulator.net import certificates
from emulator.net.listeners import BACKLOG
from emulator.net.streams import READ_BYTES

_CONNECT, _SUBSCRIBE, _PUBLISH = 0x10, 0x82, 0x32

_buffer = memoryview(bytearray(READ_BYTES))


class Nod(asyncio.BufferedProtocol):
    """One connection; as the emulator's, all share one buffer."""

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
            topic = 2 + (_buffer[1] >> 7)  # behind a length of one byte or two
            packet_id = topic + 2 + (_buffer[topic] << 8 | _buffer[topic + 1])
            self._write(b"\x40\x02" + _buffer[packet_id : packet_id + 2])
        elif first_byte == _CONNECT:
            self._write(mqtt.CONNACK + b"\0\0")
        elif first_byte == _SUBSCRIBE:
            self._write(mqtt.suback(1, len(mqtt.FILTERS)))


async def serve(host: str, folder: Path) -> None:
    """Serve until the process is ended; prints the port."""
    tls = certificates.prepare(folder, certificates.local_names(host)).server_context()
    server = await asyncio.get_running_loop().create_server(Nod, host, 0, ssl=tls, backlog=BACKLOG)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve(sys.argv[1], Path(sys.argv[2])))
