"""The MQTT head, by which devices come in: amqtt's broker, made to behave as an IoT hub.

All that uses amqtt is here. requirements.txt pins its version, because some of what is used is
private. The broker is the frame in which connections begin and end. What is replaced, and why:

- the listener: amqtt stops accepting connections after a PUBLISH to `$iothub/…`;
- the begin of a connection: amqtt takes over a live session before it authenticates the client;
- the read loop: amqtt reads packet by packet, with a task for each packet, in no order and without
  a bound; and it ignores that a keep-alive lapsed;
- delivery: amqtt broadcasts by topic, and all devices of a hub subscribe to the same topics;
- protocol handler and session: amqtt's have a state machine of 24 KB, queues and tasks for each
  device. A hub needs none of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from emulator.hub.core.errors import HubError
from emulator.hub.core.printable import printable
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityDeleted
from emulator.mqtt.channel import Channel
from emulator.mqtt.connection import Connection
from emulator.mqtt.frame import Connect, PacketBuffer, ProtocolError, UnknownPacket
from emulator.mqtt.other_channel import FindOther, OtherChannel, find_no_other
from emulator.mqtt.sessions import Sessions
from emulator.net.first_bytes import advice
from emulator.net.listeners import accept
from emulator.net.streams import READ_BYTES, Stream, TcpStream, closing
from emulator.net.tls import Handshakes

_LISTENER = "default"

# How long a stopping server waits for its connections to end; longer than a stream takes to close.
_SHUTDOWN_SECONDS = 0.75


class _Broker(Broker):
    """amqtt's broker, with another way to serve a connection."""

    def __init__(self, talk: Callable[[Stream], Awaitable[None]]) -> None:
        listener = ListenerConfig(type=ListenerType.EXTERNAL)
        super().__init__(BrokerConfig(listeners={_LISTENER: listener}, plugins={}))
        self._talk = talk

    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        """Serve one connection: amqtt calls this for each."""
        await self._talk(cast("Stream", writer))


class MqttServer:
    """Serves devices over MQTT.

    Args:
        hub: the hub.
        handshakes: the handshakes of TLS, with the certificates of devices.
        find_other: returns the channel of another service that shares the port, if the user name
            of a CONNECT is one of its own.
        places: where the hub serves other protocols: see `advice`.
    """

    def __init__(
        self,
        hub: IotHub,
        handshakes: Handshakes,
        find_other: Callable[[Connect, PacketBuffer, Stream], OtherChannel | None] | None = None,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._handshakes = handshakes
        self._places = places
        # An output is a stream here.
        self._find_other = cast("FindOther", find_other) if find_other else find_no_other
        self._broker = _Broker(self._talk)
        self._connections: dict[asyncio.Task[Any] | None, Stream] = {}
        self._listening: list[asyncio.Server] = []
        self.use(hub)

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept MQTT over TLS on sockets that are bound already."""
        await self._broker.start()
        buffer = memoryview(bytearray(READ_BYTES))  # for all connections: see TcpStream
        self._listening = await accept(
            lambda: TcpStream(self.serve, buffer), sockets, self._handshakes.context
        )

    async def stop(self) -> None:
        """Stop accepting, and close every connection."""
        for server in self._listening:
            server.close()
        self._close_all()
        if tasks := [task for task in self._connections if task is not None]:
            await asyncio.wait(tasks, timeout=_SHUTDOWN_SECONDS)
        await self._broker.shutdown()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def use(self, hub: IotHub) -> None:
        """Serve another hub from now on, and close the connections to the last one."""
        self._hub = hub
        self._sessions = sessions = Sessions(hub.store)
        hub.feed.subscribe(IdentityDeleted, lambda change: sessions.forget(str(change.key)))
        self._close_all()

    def _close_all(self) -> None:
        for stream in self._connections.values():
            stream.close()

    async def serve(self, stream: Stream) -> None:
        """Speak MQTT on a connection until it ends."""
        # amqtt passes reader and writer on as they are; here one object is both.
        reader, writer = cast("ReaderAdapter", stream), cast("WriterAdapter", stream)
        await self._broker.external_connected(reader, writer, _LISTENER)

    async def _talk(self, stream: Stream) -> None:
        task = asyncio.current_task()
        self._connections[task] = stream
        certificate = self._handshakes.client_certificate(stream.tls)
        channel = Channel(
            self._hub, self._sessions, stream, certificate, stream.peer, self._find_other
        )
        connection = Connection(
            stream, channel, self._hub.clock, self._hub.turns, self._hub.gate.throttles
        )
        try:
            async with closing(stream):
                try:
                    await connection.run()
                except (ProtocolError, HubError) as error:
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
        data = error.data if isinstance(error, UnknownPacket) else b""
        return advice(data, "MQTT", self._places) or error
