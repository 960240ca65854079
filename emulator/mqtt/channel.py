"""MQTT as an IoT hub speaks it, for one device: bytes in; bytes, and calls on the hub, out.

The channel is the device's link. It does no I/O, and its only timers are those of faults.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import cast

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.keys import mask_key
from emulator.hub.access.operations import Operation
from emulator.hub.core import errors, limits
from emulator.hub.core.printable import printable
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission, Delivery
from emulator.hub.messages.telemetry import Sender
from emulator.mqtt import faults, frame, messages, property_bag, topics, twins
from emulator.mqtt.admissions import admit, refusal
from emulator.mqtt.batch import Batch
from emulator.mqtt.deliveries import Deliveries
from emulator.mqtt.other_channel import FindOther, OtherChannel, find_no_other
from emulator.mqtt.output import Output
from emulator.mqtt.sessions import Sessions, Subscriptions
from emulator.mqtt.topics import MethodResponse, Telemetry

log = logging.getLogger(__name__)

# What a connection must wait for: a delay in seconds, or its turn for an operation.
Wait = float | Operation

# A topic has one in place of what is not known yet: no filter can name it, and wildcards match it.
_ANY = "\0"

# The connection looks at the time after so many messages.
_LOOK = 8


class Channel:
    """The MQTT connection of one device, from its CONNECT on; the hub's `DeviceLink`.

    The hub sends with QoS 0, except cloud-to-device messages (IoT Hub docs: MQTT support).

    Args:
        hub: the hub.
        sessions: the subscriptions that outlive a connection.
        output: where packets for the device are written.
        certificate: what the device has sent in its TLS handshake; None if it sent no certificate.
        peer: the address of the device, for the log.
        find_other: finds the channel of another service that a CONNECT is for.
    """

    protocol = "MQTT"

    def __init__(
        self,
        hub: IotHub,
        sessions: Sessions,
        output: Output,
        certificate: ClientCertificate | None = None,
        peer: str = "",
        find_other: FindOther = find_no_other,
    ) -> None:
        self.closed = False
        """Whether the connection has ended, or is to end."""
        self.connected = False
        """Whether a CONNECT was accepted."""
        self.silence = 0.0
        """How many seconds a connected device may be silent."""
        self._hub = hub
        self._faults = hub.faults
        self._is_limited = hub.gate.throttles.limits(Telemetry.operation)
        self._sessions = sessions
        self._output = output
        self._certificate = certificate
        self._peer = peer
        self._find_other = find_other
        self.successor: OtherChannel | None = None
        """The channel that takes the connection over with its CONNECT; None if this one stays."""
        self._packets = frame.PacketBuffer(limits.MQTT_CONNECT_BYTES)
        # What a CONNECT brings
        self._admission: Admission
        self._sender: Sender
        self._versioned = self._is_cut = self._persistent = False
        self._will: frame.Publish | None = None
        # The session
        self._subscriptions: Subscriptions = {}
        self._deliveries = Deliveries()
        self._batch = Batch()  # until `flush`

    # --- what the connection calls

    def receive_one(self, data: bytes) -> bool:
        """Take a message like the last one, if some bytes are just that; returns whether they are.

        Most reads of most devices have one such message. This does the same as `receive` and
        `flush`, whose steps take as long as all the rest.
        """
        start = self._packets.body_of_one(data)
        if not start or self.closed or self._faults.active:
            return False
        again = self._batch.again(data[0], data, start)
        if again is None:
            return False
        message, acknowledgement = again
        self._hub.gate.enter(self._admission, Telemetry.operation)
        self._sender.ingest_soon((message,), functools.partial(self._stored, acknowledgement))
        return True

    def receive(self, data: bytes) -> Iterator[Wait | None]:
        """Take the packets in some bytes, in steps, so that the connection can pace them.

        Each step takes a packet, or some messages. Telemetry and answers wait for `flush`: the hub
        gets telemetry in batches, or one by one if it has a limit.

        Yields:
            what the connection must wait for before the next step, after a `flush`.

        Raises:
            ProtocolError: the device broke a rule. Its earlier packets count.
        """
        self._batch.is_open = True
        number, step_ends = 0, False
        for first_byte, body in self._packets.feed(data):
            if step_ends:
                yield None
                self._batch.is_open = True
            if self.closed:
                return
            again = self._batch.again(first_byte, body)
            if again is not None and not self._faults.active:
                self._batch.take(*again)
                number += 1
                step_ends = not number % _LOOK
                continue
            step_ends = True
            if self.successor is not None:
                self.successor.take(first_byte, body)
            elif not self.connected:
                yield from self._take_connect(first_byte, body)
            else:
                if self._is_limited and topics.is_telemetry(first_byte, body):
                    yield Telemetry.operation
                    if self.closed:
                        return
                try:
                    if first_byte in frame.PUBLISH_BYTES:
                        self._take_publish(first_byte, body)
                    else:
                        self._take(first_byte, body)
                except errors.HubError as error:
                    # MQTT 3.1.1 has no other answer to a packet that the hub refuses.
                    self._hub.refusals.info(
                        "Refused %s: %s", printable(self.key), printable(error), error=error
                    )
                    self._end()

    def flush(self) -> None:
        """Pass the telemetry that was received to the hub, and send the answers behind it."""
        received, answers = self._batch.close()
        if received:
            try:
                self._hub.gate.enter(self._admission, Telemetry.operation)
            except errors.ThrottlingException:
                pass  # a will can't wait for its turn
            except errors.HubError:
                return  # a fault refuses a will
            self._sender.ingest_soon(received, functools.partial(self._stored, answers))
        elif answers:
            # Acknowledgements of an earlier batch can wait: they keep their order (section 4.6).
            self._hub.events.behind_pending(functools.partial(self._output.write, answers))

    def _stored(self, answers: bytes, error: errors.HubError | None) -> None:
        """Acknowledge the telemetry that the hub has; a device sends the other one again."""
        if error is not None:
            self._end()
        elif answers:
            self._output.write(answers)

    def _write(self, data: bytes) -> None:
        if not self._batch.is_open:
            self._output.write(data)
            return
        self._batch.answer(data)
        if self._batch.is_full:
            self._flush_within_read()

    def _flush_within_read(self) -> None:
        self.flush()
        self._batch.is_open = True

    def _acknowledge(self, packet_id: int) -> None:
        if not self.closed:
            self._write(frame.puback(packet_id))

    def resume(self) -> None:
        """Send the messages that had to wait until the device read what was written before."""
        if self.connected and not self.closed:
            self._hub.cloud_to_device.push(self)

    def expire(self) -> None:
        """End the connection of a device that was silent for too long."""
        if not self.closed:
            log.info("Closed the connection of %s: keep-alive lapsed", printable(self.key))
            self._end()

    def lost(self) -> None:
        """Note that the connection has ended: now the device leaves its will, if it has one."""
        self.closed = True
        if self.connected:
            self._hub.telemetry.flush()  # a device that broke a rule gets the acknowledgements
            self._hub.links.disconnect(self)
            if self._will is not None:
                self._batch.take(messages.will(self._will, self.key), b"")
            self.flush()

    # --- what the hub calls: see `DeviceLink`

    @property
    def key(self) -> IdentityKey:
        """See `DeviceLink.key`."""
        return self._admission.key

    def accepts_method(self, name: str) -> bool:
        """See `DeviceLink.accepts_method`."""
        # Without an api-version a device is not online for methods (azure-iot-sdk-csharp#33).
        return self._versioned and self._is_granted(topics.method_request(name, _ANY))

    @property
    def accepts_commands(self) -> bool:
        """See `DeviceLink.accepts_commands`; not while much waits for the device to read it."""
        return self._deliveries.qos is not None and not self._is_congested()

    @property
    def unacknowledged(self) -> Collection[str]:
        """See `DeviceLink.unacknowledged`."""
        return self._deliveries.in_flight

    @property
    def lock_seconds(self) -> None:
        """See `DeviceLink.lock_seconds`: whether a lock over MQTT ends in time is unknown."""

    def deliver(self, delivery: Delivery) -> None:
        """See `DeviceLink.deliver`; QoS 1 where that was granted.

        With QoS 0 a message is accepted as soon as it is sent.
        """
        device_id, token = self.key.device_id, delivery.lock_token
        try:
            packet = self._deliveries.write(device_id, delivery)
        except frame.ProtocolError as error:
            # What a real hub does is unknown. The messages behind this one must still arrive.
            log.warning("Rejected a message for %s: %s.", printable(self.key), printable(error))
            self._hub.cloud_to_device.reject(device_id, token)
            return
        self._write(packet)
        if not self._deliveries.qos:
            self._hub.cloud_to_device.complete(device_id, token)

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        """See `DeviceLink.invoke_method`."""
        self._send(topics.method_request(name, request_id), payload)

    def notify_desired(self, patch: bytes, version: int) -> None:
        """See `DeviceLink.notify_desired`; not sent to a device that is not subscribed to it."""
        topic = topics.desired_patch(version)
        if self._versioned and self._is_granted(topic):
            self._send(topic, patch)

    def close(self, reason: errors.HubError) -> None:
        """See `DeviceLink.close`."""
        self._end()

    def cut(self) -> None:
        """See `DeviceLink.cut`."""
        self.closed = True
        self._output.abort()

    def detach(self, part: str) -> None:
        """See `DeviceLink.detach`."""

    def slow(self, rate: int | None) -> None:
        """See `DeviceLink.slow`."""
        self._output.pace(rate, self._hub.clock.machine)

    # --- CONNECT

    def _take_connect(self, first_byte: int, body: bytes) -> Iterator[Wait]:
        """Authenticate a device before all else: a refusal touches no other connection.

        Yields:
            the delay of a device that is connected from two programs.

        Raises:
            ProtocolError: it is not a CONNECT, or malformed.
        """
        if first_byte != frame.CONNECT:
            raise frame.ProtocolError("The first packet is not a CONNECT")
        try:
            connect = frame.parse_connect(body)
        except frame.UnacceptableProtocolVersion as error:
            self._output.write(error.answer)
            self._end()
            return
        self.successor = self._find_other(connect, self._packets, self._output)
        if self.successor is not None:
            return
        if not connect.client_id and not connect.clean_session:
            self._refuse(frame.ReturnCode.IDENTIFIER_REJECTED)  # section 3.1.3.1
            return
        client = mask_key(connect.client_id)  # it may be a key, by mistake
        user = topics.parse_user_name(connect.user_name or "", connect.client_id)
        if user is not None and (delay := self._hub.links.takeover_delay(user.key)):
            yield delay
            if self.closed:
                return
        try:
            self._admission = admit(self._hub, connect, user, self._certificate)
        except Exception as error:  # noqa: BLE001 - it is logged there
            code = refusal(self._hub, error, client, self._peer)
            self._end() if code is None else self._refuse(code)
        else:
            self._begin(connect, cast("topics.UserName", user))

    def _begin(self, connect: frame.Connect, user: topics.UserName) -> None:
        """Accept a CONNECT, with the session of an earlier connection, or without."""
        self.connected = True
        # Not the message: one of many short properties takes 100 times the size of its packet.
        self._will = connect.will
        self._sender = self._hub.telemetry.sender(self._admission)
        # A real hub accepts telemetry of a client that names no api-version, and answers its twin
        # requests with 400 (seen there).
        self._versioned = bool(user.parameters.get("api-version"))
        self._is_cut = user.is_cut
        self._packets.limit = limits.MQTT_PACKET_BYTES
        self.silence = connect.allowed_silence
        self._persistent = not connect.clean_session
        resumed = self._persistent and self._resume_session()
        if not resumed:
            self._sessions.forget(str(self.key))
        self._output.write(frame.connack(frame.ReturnCode.ACCEPTED, session_present=resumed))
        self._hub.links.connect(self, self._admission)
        if self._subscriptions:
            self._hub.links.subscribed(self)

    def _resume_session(self) -> bool:
        """Restore the subscriptions of an earlier connection; returns whether there are any."""
        subscriptions = self._sessions.find(str(self.key))
        with contextlib.suppress(frame.ProtocolError):
            if subscriptions is not None:
                self._subscribe(subscriptions)
                return True
        return False

    def _refuse(self, return_code: frame.ReturnCode) -> None:
        self._output.write(frame.connack(return_code))
        self._end()

    # --- the other packets

    def _take(self, first_byte: int, body: bytes) -> None:
        """Take one packet that is not a PUBLISH.

        Raises:
            ProtocolError: it is malformed, or a device must not send it.
        """
        if first_byte == frame.SUBSCRIBE:
            self._take_subscribe(*frame.parse_filters(body, with_qos=True))
        elif first_byte == frame.UNSUBSCRIBE:
            self._take_unsubscribe(*frame.parse_filters(body, with_qos=False))
        elif first_byte == frame.PUBACK:
            self._take_puback(frame.parse_puback(body))
        elif first_byte == frame.PINGREQ and not body:
            self._write(frame.PINGRESP)
        elif first_byte == frame.DISCONNECT and not body:
            self._will = None  # section 3.14.4
            self._end()
        else:
            raise frame.ProtocolError(f"Unexpected packet with the first byte {first_byte:#04x}")

    def _take_publish(self, first_byte: int, body: bytes) -> None:
        """Take a PUBLISH: acknowledge it, then answer it.

        Raises:
            ProtocolError: it is malformed, or its topic is unknown to the hub.
        """
        packet = frame.parse_publish(first_byte, body)
        request = topics.parse_topic(packet.topic, self._admission.key)
        answer = message = None
        if isinstance(request, Telemetry):
            bag = property_bag.parse(request.properties)
            message = messages.telemetry(packet, bag)
            if not self._is_limited:  # else each message waits for its turn
                self._batch.remember(packet.topic, bag)
        else:
            if self._batch.has_messages:  # the log has them before an event of a change
                self._flush_within_read()
            answer = self._take_request(request, packet.payload)
            if self.closed:  # by a fault
                return
        acknowledgement = frame.puback(packet.packet_id) if packet.qos else b""
        if self._faults.active:
            if message is not None:  # whose acknowledgement does not wait in the batch
                self._flush_within_read()
            publish = faults.FaultyPublish(self._hub, self._admission, request.operation, packet)
            publish.take(self._sender, message, self._acknowledge, self._end)
        elif message is not None:
            self._batch.take(message, acknowledgement)
        elif acknowledgement:
            self._write(acknowledgement)
        if answer is not None:
            self._send(*answer)

    def _take_request(self, request: topics.Request, payload: bytes) -> tuple[str, bytes] | None:
        """Carry out a twin request, or take the response of a direct method.

        Returns:
            the topic and payload of an answer, which needs a request id and a subscription.
        """
        self._hub.links.note_activity(self.key)
        if self._is_cut and not isinstance(request, MethodResponse):
            # Seen on a real hub (azure-sdk-for-c#2248).
            raise frame.ProtocolError("Twin request after a user name with / in DeviceClientType")
        if isinstance(request, MethodResponse):
            self._hub.gate.enter(self._admission, request.operation)
            self._hub.methods.respond(self, request.request_id, request.status, payload)
            return None
        answer = twins.answer(
            self._hub, self._admission, request, payload, versioned=self._versioned
        )
        return answer if answer and self._is_granted(answer[0]) else None

    def _take_subscribe(self, packet_id: int, requested: Sequence[tuple[str, int]]) -> None:
        """Begin subscriptions. The hub grants any filter, and sends the device its own topics.

        Raises:
            ProtocolError: a filter is malformed, or there are more subscriptions than a hub allows.
        """
        self._hub.gate.enter(self._admission, Operation.SUBSCRIBE)
        granted = [(name, min(qos, 1)) for name, qos in requested]
        self._subscribe({**self._subscriptions, **dict(granted)})
        self._store_session()
        self._write(frame.suback(packet_id, [qos for _, qos in granted]))
        self._hub.links.subscribed(self)

    def _take_unsubscribe(self, packet_id: int, ended: Sequence[tuple[str, int]]) -> None:
        """End subscriptions."""
        names = dict(ended)
        self._subscribe({name: q for name, q in self._subscriptions.items() if name not in names})
        self._store_session()
        self._write(frame.unsuback(packet_id))

    def _subscribe(self, subscriptions: Subscriptions) -> None:
        topics.check_filters(subscriptions)
        self._subscriptions = subscriptions
        commands = topics.cloud_to_device(self.key.device_id, _ANY)
        self._deliveries.qos = topics.granted_qos(subscriptions, commands)

    def _is_granted(self, topic: str) -> bool:
        return topics.granted_qos(self._subscriptions, topic) is not None

    def _store_session(self) -> None:
        if self._persistent:
            self._sessions.keep(str(self.key), self._subscriptions)

    def _take_puback(self, packet_id: int) -> None:
        """End a message; an identifier that is unknown, or of a message that ended, is ignored."""
        token = self._deliveries.end(packet_id)
        if token is not None:
            self._hub.gate.enter(self._admission, Operation.SETTLE_COMMAND)
            with contextlib.suppress(errors.DeviceMessageLockLost):  # purged or expired meanwhile
                self._hub.cloud_to_device.complete(self.key.device_id, token)

    def _send(self, topic: str, payload: bytes) -> None:
        """Send with QoS 0; a device that does not read loses its connection instead."""
        if self._is_congested():
            log.info("Closed the connection of %s: the device does not read", printable(self.key))
            self._end()
        else:
            self._write(frame.publish(topic, payload))

    def _is_congested(self) -> bool:
        return self._output.unsent() > limits.MQTT_WRITE_BUFFER_BYTES

    def _end(self) -> None:
        """End the connection. The hub must know it now, not when the peer has closed its side."""
        if self.closed:
            return
        self.closed = True
        self.flush()
        self._hub.telemetry.flush()  # the acknowledgements go out before the end
        if self.connected:
            self._hub.links.disconnect(self)
        self._output.close()
