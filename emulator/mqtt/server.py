"""amqtt's broker, made to behave as an IoT hub's MQTT front end.

All that leans on private parts of amqtt stands here, which is why requirements.txt pins its
version. What is used of amqtt: the broker as the frame that connections come in by. What is
replaced, and why:

- how a connection begins: amqtt takes over a live session before it authenticates the newcomer;
- the read loop: amqtt reads packet by packet, a task for each, in no order and without bound; and
  it ignores a keep-alive that ran out;
- delivery: amqtt broadcasts by topic, and a hub's devices all subscribe to the same topics;
- protocol handler and session: amqtt's have a state machine of 24 KB, queues and tasks for each
  device, of which a hub needs none.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.keys import mask_key
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import IotHubUnauthorizedAccess
from emulator.hub.gate import DeviceCaller
from emulator.hub.hub import IotHub
from emulator.hub.identities.changes import IdentityDeleted
from emulator.hub.links.link import Admission
from emulator.hub.messages.message import Message
from emulator.mqtt import frame, topics
from emulator.mqtt.connection import DeviceConnection
from emulator.mqtt.device_link import will_message
from emulator.mqtt.frame import (
    Connect,
    PacketBuffer,
    ProtocolError,
    ReturnCode,
    UnacceptableProtocolVersion,
)
from emulator.mqtt.sessions import Sessions
from emulator.mqtt.topics import UserName
from emulator.net.listeners import BACKLOG
from emulator.net.streams import READ_BYTES, Stream, TcpStream

log = logging.getLogger(__name__)

_LISTENER = "default"

# How long a stopping broker waits for its connections to end; see streams.py for a stalled one.
_SHUTDOWN_SECONDS = 0.75


class HubBroker(Broker):
    """The broker that devices connect to.

    Args:
        hub: what the devices talk to.
        sessions: the subscriptions that outlive a connection.
        client_certificate: tells which certificate the client of a TLS connection has shown.
    """

    def __init__(
        self,
        hub: IotHub,
        sessions: Sessions,
        client_certificate: Callable[[ssl.SSLObject | None], ClientCertificate | None],
    ) -> None:
        listener = ListenerConfig(type=ListenerType.EXTERNAL)
        super().__init__(BrokerConfig(listeners={_LISTENER: listener}, plugins={}))
        self._hub = hub
        self._device_sessions = sessions
        hub.feed.subscribe(IdentityDeleted, lambda change: sessions.forget(str(change.key)))
        self._client_certificate = client_certificate
        self._connections: dict[asyncio.Task[Any] | None, Stream] = {}
        self._listening: list[asyncio.Server] = []

    async def listen(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext) -> None:
        """Accept MQTT over TLS on sockets that are bound already."""
        loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(READ_BYTES))  # for all of them: see TcpStream
        for listener in sockets:
            server = await loop.create_server(
                lambda: TcpStream(self.serve, buffer),
                sock=listener,
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=limits.TLS_HANDSHAKE_TIMEOUT,
            )
            self._listening.append(server)

    async def shutdown(self) -> None:
        """Stop accepting, close every connection, and stop."""
        for server in self._listening:
            server.close()
        for stream in self._connections.values():
            stream.drop()
        if tasks := [task for task in self._connections if task is not None]:
            await asyncio.wait(tasks, timeout=_SHUTDOWN_SECONDS)
        await super().shutdown()

    async def serve(self, stream: Stream) -> None:
        """Speak MQTT on a connection until it ends."""
        await self.external_connected(stream, stream, _LISTENER)

    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        """Serve one connection from its first byte to its last: amqtt's entry for all of them."""
        stream, peer = cast("Stream", writer), writer.get_peer_info()
        self._connections[asyncio.current_task()] = stream
        try:
            await self._serve(stream)
        except ProtocolError as error:
            log.info("Closed the connection of %s: %s", peer, error)
        except (ConnectionError, ssl.SSLError) as error:
            log.info("Lost the connection of %s: %s", peer, error)
        except Exception:
            log.exception("The connection of %s failed", peer)
        finally:
            await stream.close()
            del self._connections[asyncio.current_task()]

    async def _serve(self, stream: Stream) -> None:
        buffer = PacketBuffer(limits.MQTT_PACKET_BYTES)
        timer = asyncio.get_running_loop().call_later(limits.MQTT_CONNECT_TIMEOUT, stream.drop)
        try:
            # What came together with the CONNECT waits for it to be answered.
            waiting = await _first_packets(stream, buffer)
        finally:
            timer.cancel()
        if not waiting:
            raise ProtocolError("no CONNECT, or not in time")
        first_byte, body = waiting.pop(0)
        if first_byte != frame.CONNECT:
            raise ProtocolError("the first packet is not a CONNECT")
        try:
            connect = frame.parse_connect(body)
        except UnacceptableProtocolVersion:
            await _refuse(stream, ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION)
            return
        user = topics.parse_user_name(connect.user_name or "", connect.client_id)
        admission = await self._admit(connect, user, stream)
        if admission is None or user is None:
            return
        try:
            will = _will(connect, admission)
        except ProtocolError as error:
            # A real hub's answer is not known; this one ends the client's attempts.
            log.info("Refused %s: %s", admission.key, error)
            await _refuse(stream, ReturnCode.NOT_AUTHORIZED)
            return
        versioned = "api-version" in user.parameters
        connection = DeviceConnection(
            self._hub, self._device_sessions, connect, admission, will, versioned, stream
        )
        await connection.run(buffer, waiting)

    async def _admit(
        self, connect: Connect, user: UserName | None, stream: Stream
    ) -> Admission | None:
        """Authenticate a CONNECT before anything else; a refusal touches no other connection."""
        if not connect.client_id and not connect.clean_session:
            await _refuse(stream, ReturnCode.IDENTIFIER_REJECTED)  # MQTT 3.1.1, section 3.1.3.1
            return None
        try:
            if user is None:
                raise IotHubUnauthorizedAccess("the user name does not agree with the client id")
            caller = DeviceCaller(
                user.key,
                _token(connect),
                user.host,
                self._client_certificate(stream.get_ssl_info()),
                user.parameters.get("model-id", ""),
            )
            return self._hub.gate.enter(caller, Operation.CONNECT)
        except IotHubUnauthorizedAccess as error:
            client = mask_key(connect.client_id)  # a key may have got there by mistake
            log.info(
                "Refused %r at %s: %s", client, stream.get_peer_info(), error.__cause__ or error
            )
            await _refuse(stream, ReturnCode.NOT_AUTHORIZED)
        except Exception:
            log.exception("Authenticating a device at %s failed", stream.get_peer_info())
            await _refuse(stream, ReturnCode.SERVER_UNAVAILABLE)
        return None


async def _first_packets(stream: Stream, buffer: PacketBuffer) -> list[tuple[int, bytes]]:
    """Read until there is a whole packet; empty if the client leaves before that."""
    while data := await stream.read():
        if received := list(buffer.feed(data)):
            return received
    return []


async def _refuse(stream: Stream, return_code: ReturnCode) -> None:
    stream.write(frame.connack(return_code))
    await stream.drain()


def _token(connect: Connect) -> str | None:
    """Take the password as a SAS token.

    Raises:
        IotHubUnauthorizedAccess: it is not text.
    """
    try:
        return None if connect.password is None else connect.password.decode()
    except UnicodeDecodeError as error:
        raise IotHubUnauthorizedAccess from error


def _will(connect: Connect, admission: Admission) -> Message | None:
    return None if connect.will is None else will_message(connect.will, admission.key)
