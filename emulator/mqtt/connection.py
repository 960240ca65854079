"""One device's connection: its packets, in order, as calls on its link; what its link sends.

What is little, and comes while the connection is idle, is handled where it arrives. What is more
takes turns with other connections, and waits while the device doesn't read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Sequence

from emulator.hub.core import limits
from emulator.hub.core.errors import DeviceMessageLockLost, HubError
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission, Delivery
from emulator.hub.messages.message import Message
from emulator.mqtt import frame as packets
from emulator.mqtt import topics
from emulator.mqtt.device_link import MqttLink
from emulator.mqtt.frame import Connect, PacketBuffer, ProtocolError, ReturnCode
from emulator.mqtt.sessions import Sessions, Subscriptions
from emulator.mqtt.topics import Channel
from emulator.net.streams import Stream

log = logging.getLogger(__name__)

# How much of the answers to one read is held back, to go out together; and how many packets of one
# read are taken at a stretch. One read can bring 30,000 of the smallest.
_HELD_BYTES = 64 * 1024
_TURN = 128


class DeviceConnection:
    """The connection of one device that was let in.

    Args:
        sessions: the subscriptions that outlive it.
        connect: the packet that it came with.
        admission: who it is, and until when.
        will: what it leaves if it is cut off.
        versioned: whether its user name has an api-version.
    """

    def __init__(
        self,
        hub: IotHub,
        sessions: Sessions,
        connect: Connect,
        admission: Admission,
        will: Message | None,
        versioned: bool,
        stream: Stream,
    ) -> None:
        self._client_id = str(admission.key)
        self._hub = hub
        self._sessions = sessions
        self._admission = admission
        self._stream = stream
        self._open = True
        self._link = MqttLink(
            self._hub,
            admission,
            versioned,
            send=self._publish,
            send_command=self._publish_command,
            congested=self._is_congested,
            drop=self._drop,
        )
        self._will = will
        self._persistent = not connect.clean_session
        self._subscriptions: Subscriptions = {}
        self._silence = _allowed_silence(connect.keep_alive)
        self._last_heard = 0.0
        # Kept, because asking for it is a system call before Python 3.12.
        self._loop = asyncio.get_running_loop()
        self._packet_id = 0

    async def run(self, buffer: PacketBuffer, waiting: list[tuple[int, bytes]]) -> None:
        """Answer the CONNECT, and take packets until the connection ends.

        Args:
            buffer: what has been read and is no whole packet yet.
            waiting: the packets that came together with the CONNECT.

        Raises:
            ProtocolError: the device broke a rule.
        """
        # Nothing is awaited from the admission on until the hub knows the link: what the hub learns
        # meanwhile, that the device is disabled for one, would miss it.
        session_present = self._resume()
        self._stream.write(packets.connack(ReturnCode.ACCEPTED, session_present=session_present))
        self._hub.links.connect(self._link, self._admission)
        self._last_heard = self._loop.time()
        self._watch(self._silence)
        try:
            if self._subscriptions:
                self._hub.links.subscribed(self._link)
            await self._handle(waiting)
            self._buffer = buffer
            self._stream.at_once = self._handle_at_once
            while self._open and (data := await self._stream.read()):
                self._last_heard = self._loop.time()
                await self._handle(buffer.feed(data))
        finally:
            self._open = False
            self._timer.cancel()
            self._hub.links.disconnect(self._link)
            if self._will is not None:
                self._hub.telemetry.ingest(self._admission, [self._will])
            # Each holds the other: both would wait for the garbage collector, with TLS buffers.
            del self._link
            self._stream.at_once = None

    def _resume(self) -> bool:
        """Take up the session of an earlier connection, or drop it; says whether there was one."""
        if not self._persistent:
            self._sessions.forget(self._client_id)
            return False
        subscriptions = self._sessions.find(self._client_id)
        if subscriptions is None:
            return False
        try:
            self._subscribe(subscriptions)
        except ProtocolError:  # kept by a version of the emulator that knew other filters
            self._sessions.forget(self._client_id)
            return False
        return True

    def _handle_at_once(self, data: bytes) -> None:
        """Take a few packets, without waiting for anything."""
        self._last_heard = self._loop.time()
        self._stream.cork()
        try:
            for first_byte, body in self._buffer.feed(data):
                self._take(first_byte, body)
                if not self._open:
                    break
        finally:
            self._link.hand_in()
            self._stream.uncork()
        if not self._open:
            self._close()

    async def _handle(self, received: Iterable[tuple[int, bytes]]) -> None:
        """Take packets in their order, then wait while the device doesn't read our answers."""
        self._stream.cork()
        try:
            for number, (first_byte, body) in enumerate(received, start=1):
                if not self._open:
                    return
                self._take(first_byte, body)
                if self._stream.held > _HELD_BYTES or number % _TURN == 0:
                    self._link.hand_in()
                    await self._stream.drain()
                    await asyncio.sleep(0)  # other devices have their turn
                    self._stream.cork()
        finally:
            self._link.hand_in()
            await self._stream.drain()
        self._hub.cloud_to_device.push(self._link)  # what a congested connection had to wait for

    def _take(self, first_byte: int, body: bytes) -> None:
        """Take one packet.

        Raises:
            ProtocolError: it is malformed, or none that a device may send.
        """
        if first_byte & 0xF0 == packets.PUBLISH:
            packet = packets.parse_publish(first_byte, body)
            answer = self._link.receive(packet)
            if packet.qos:
                self._stream.write(packets.puback(packet.packet_id))
            if answer is not None:
                self._publish(*answer)
        elif first_byte == packets.SUBSCRIBE:
            self._take_subscribe(*packets.parse_subscribe(body))
        elif first_byte == packets.UNSUBSCRIBE:
            self._take_unsubscribe(*packets.parse_unsubscribe(body))
        elif first_byte == packets.PINGREQ and not body:
            self._stream.write(packets.PINGRESP)
        elif first_byte == packets.DISCONNECT and not body:
            self._will = None  # a device that says goodbye leaves none
            self._open = False
        elif first_byte == packets.PUBACK:
            self._acknowledged(packets.parse_puback(body))
        else:
            raise ProtocolError(f"a packet that begins with {first_byte:#04x}")

    def _take_subscribe(self, packet_id: int, requested: Sequence[tuple[str, int]]) -> None:
        """Take up subscriptions; a filter that a hub doesn't know ends the connection.

        Raises:
            ProtocolError: such a filter, or more of them than a hub allows.
        """
        granted = [(name, min(qos, 1)) for name, qos in requested]
        self._subscribe({**self._subscriptions, **dict(granted)})
        self._keep_session()
        self._stream.write(packets.suback(packet_id, [qos for _, qos in granted]))
        self._hub.links.subscribed(self._link)

    def _take_unsubscribe(self, packet_id: int, ended: Collection[str]) -> None:
        """End subscriptions."""
        self._subscribe(
            {name: qos for name, qos in self._subscriptions.items() if name not in ended}
        )
        self._keep_session()
        self._stream.write(packets.unsuback(packet_id))

    def _subscribe(self, subscriptions: Subscriptions) -> None:
        if len(subscriptions) > limits.MQTT_SUBSCRIPTIONS:
            raise ProtocolError(f"more than {limits.MQTT_SUBSCRIPTIONS} subscriptions")
        self._link.subscriptions = {
            topics.parse_filter(name, self._admission.key) for name in subscriptions
        }
        self._subscriptions = subscriptions

    def _keep_session(self) -> None:
        if self._persistent:
            self._sessions.keep(self._client_id, self._subscriptions)

    def _publish(self, topic: str, payload: bytes) -> None:
        """Send to this device, with QoS 0; one that doesn't read loses its connection instead."""
        if self._is_congested():
            log.info("Closed the connection of %s: it doesn't read", self._client_id)
            self._close()
        else:
            self._stream.write(packets.publish(topic, payload))

    def _publish_command(self, topic: str, payload: bytes, command: Delivery) -> None:
        """Send a cloud-to-device message, with QoS 1 where that was granted.

        With QoS 0 it is taken as soon as it is sent.
        """
        token = command.lock_token
        if not self._command_qos():
            self._stream.write(packets.publish(topic, payload))
            self._hub.cloud_to_device.complete(self._admission.key.device_id, token)
            return
        packet_id = self._next_packet_id()
        self._link.in_flight[packet_id] = token
        self._stream.write(
            packets.publish(topic, payload, packet_id=packet_id, duplicate=command.redelivered)
        )

    def _next_packet_id(self) -> int:
        """Choose an id that is not in flight; there are 65,535, and 50 messages at most."""
        while True:
            self._packet_id = self._packet_id % 0xFFFF + 1
            if self._packet_id not in self._link.in_flight:
                return self._packet_id

    def _is_congested(self) -> bool:
        return self._stream.unsent > limits.MQTT_WRITE_BUFFER_BYTES

    def _command_qos(self) -> int:
        return max(
            qos
            for name, qos in self._subscriptions.items()
            if topics.parse_filter(name, self._admission.key).channel is Channel.CLOUD_TO_DEVICE
        )

    def _acknowledged(self, packet_id: int) -> None:
        """Take a PUBACK; one for nothing, or for a message that has ended, is ignored."""
        token = self._link.in_flight.pop(packet_id, None)
        if token is not None:
            with contextlib.suppress(DeviceMessageLockLost):  # purged, or expired, meanwhile
                self._hub.cloud_to_device.complete(self._admission.key.device_id, token)

    def _watch(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._check_keep_alive)

    def _check_keep_alive(self) -> None:
        silent = self._loop.time() - self._last_heard
        if silent < self._silence:
            self._watch(self._silence - silent)
        else:
            log.info("Closed the connection of %s: keep-alive lapsed", self._client_id)
            self._close()

    def _drop(self, reason: HubError) -> None:
        self._close()

    def _close(self) -> None:
        self._open = False
        self._hub.links.disconnect(self._link)  # now, not when the peer has said goodbye
        self._stream.drop()


def _allowed_silence(keep_alive: int) -> float:
    """Tell how many seconds a device may be silent; 0 asks for the longest (EdgeHub)."""
    if keep_alive == 0:
        return limits.MQTT_KEEP_ALIVE_MAX
    return min(1.5 * keep_alive, limits.MQTT_KEEP_ALIVE_MAX)
