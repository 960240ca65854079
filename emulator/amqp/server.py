"""The AMQP head: services and devices come in here, over TLS, plain TCP and WebSockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from emulator.hub.core.printable import printable
from emulator.hub.hub import IotHub
from emulator.net.first_bytes import advice
from emulator.net.listeners import accept
from emulator.net.streams import READ_BYTES, Stream, TcpStream, closing
from emulator.net.tls import Handshakes

if TYPE_CHECKING:
    from emulator.amqp.driver import Driver
    from emulator.amqp.nodes.event_messages import EncodedEvents
    from emulator.amqp.other_service import OtherService

# How long a stopping server waits for its connections to end; longer than a stream takes to close.
_SHUTDOWN_SECONDS = 0.75


class AmqpServer:
    """Serves AMQP 1.0.

    Args:
        hub: the hub.
        handshakes: the handshakes of TLS, with the certificates of devices.
        tls_port: a port of AMQP over TLS, to which clients are redirected.
        other: another service that shares the port.
        places: where the hub serves other protocols: see `advice`.
    """

    def __init__(
        self,
        hub: IotHub,
        handshakes: Handshakes,
        tls_port: int,
        other: OtherService | None = None,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._hub = hub
        self._tls_port = tls_port
        self._handshakes = handshakes
        self._other = other
        self._places = places
        self._buffer = memoryview(bytearray(READ_BYTES))  # for all connections: see TcpStream
        self._encoded: EncodedEvents | None = None  # from the first connection on
        self._connections: dict[asyncio.Task[None] | None, Driver] = {}
        self._listening: list[asyncio.Server] = []

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections over TLS on sockets that are bound already."""
        self._listening += await accept(self.protocol, sockets, self._handshakes.context)

    async def start_plain(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections without TLS on sockets that are bound already."""
        self._listening += await accept(self.protocol, sockets, None)

    async def stop(self) -> None:
        """Stop accepting, and close every connection."""
        for server in self._listening:
            server.close()
        if self._connections:
            self._close_all("The hub stops")
            tasks = [task for task in self._connections if task is not None]
            await asyncio.wait(tasks, timeout=_SHUTDOWN_SECONDS)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def use(self, hub: IotHub) -> None:
        """Serve another hub from now on, and close the connections to the last one."""
        self._hub, self._encoded = hub, None
        if self._connections:
            self._close_all("The hub begins anew")

    def _close_all(self, why: str) -> None:
        from emulator.amqp.errors import AmqpError, Condition

        for driver in [*self._connections.values()]:
            driver.close(AmqpError(Condition.CONNECTION_FORCED, why))

    def protocol(self) -> TcpStream:
        """Make the protocol of a connection, for a listener."""
        return TcpStream(self.serve, self._buffer)

    async def serve(self, stream: Stream) -> None:
        """Speak AMQP on a connection until it ends."""
        # Imported here: most hubs serve no AMQP, and a start would take longer.
        from emulator.amqp.driver import Driver
        from emulator.amqp.nodes.event_messages import EncodedEvents

        self._encoded = self._encoded or EncodedEvents()
        certificate = self._handshakes.client_certificate(stream.tls)
        driver = Driver(stream, self._hub, certificate, self._tls_port, self._encoded, self._other)
        task = asyncio.current_task()
        self._connections[task] = driver
        try:
            async with closing(stream):
                if error := await driver.run():
                    self._hub.refusals.info(
                        "Closed the connection of %s: %s",
                        stream.peer,
                        printable(self._reason(error)),
                        error=error,
                    )
        finally:
            del self._connections[task]

    def _reason(self, error: Exception) -> object:
        """Return why a connection is closed, and what to use if it speaks another protocol."""
        from emulator.amqp.errors import UnknownHeader

        header = error.header if isinstance(error, UnknownHeader) else b""
        return advice(header, "AMQP", self._places) or error
