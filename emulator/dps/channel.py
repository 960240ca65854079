"""MQTT as the Device Provisioning Service speaks it, for one device: bytes in, bytes out.

It takes over from the channel of a hub's device with the CONNECT. DPS docs: communicate with DPS
using MQTT.
"""

from __future__ import annotations

from collections.abc import Iterator

from emulator.dps import bodies, limits
from emulator.dps.access import Proof
from emulator.dps.errors import Unauthorized, is_transient
from emulator.dps.names import ID_SCOPE
from emulator.dps.registration import ASSIGNING
from emulator.dps.registrations import Registrations
from emulator.hub.core import errors
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import HubError
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.printable import printable
from emulator.mqtt import frame
from emulator.mqtt.output import Output

_ANSWERS = "$dps/registrations/res/"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_STATUS = "$dps/registrations/GET/iotdps-get-operationstatus/"

_REFUSED = 0x80  # MQTT 3.1.1, section 3.9.3
_ACCEPTED, _OK = 202, 200


class ProvisioningChannel:
    """The MQTT connection of a device that registers, from its CONNECT on.

    Args:
        registrations: registers devices.
        clock: the clock of the hub.
        packets: cuts the bytes of the connection into packets.
        output: where packets for the device are written.
        registration_id: the id in its user name.
        scope: the id scope in its user name.
        silence: how many seconds it may be silent.
        proof: its credentials. They are checked with each request: the service accepts the CONNECT
            of every device that has some (seen there).
    """

    successor = None

    def __init__(
        self,
        registrations: Registrations,
        clock: Clock,
        packets: frame.PacketBuffer,
        output: Output,
        *,
        registration_id: str,
        scope: str,
        silence: float,
        proof: Proof,
    ) -> None:
        self.closed = False
        self.connected = False
        self.silence = silence
        self._registrations = registrations
        self._clock = clock
        self._packets = packets
        self._output = output
        self._id = registration_id
        self._proof = proof
        self._granted: int | None = None  # the QoS of answers
        self._packet_id = 0
        if scope.lower() != ID_SCOPE.lower():
            # A real service is found by its scope, so it sends no answer here.
            raise frame.ProtocolError(f"The id scope is {scope!r}, not {ID_SCOPE}")
        if proof.token is None and proof.certificate is None:
            registrations.refusals.info(
                "Refused %r: neither a SAS token nor a certificate",
                registration_id,
                error=Unauthorized(),
            )
            output.write(frame.connack(frame.ReturnCode.NOT_AUTHORIZED))
            self._end()
            return
        self.connected = True
        packets.limit = limits.MESSAGE_BYTES + frame.TEXT_BYTES
        output.write(frame.connack(frame.ReturnCode.ACCEPTED))

    def receive_one(self, data: bytes) -> bool:
        """No packet is so frequent that it has a shorter way than `receive`."""
        return False

    def receive(self, data: bytes) -> Iterator[None]:
        """Take the packets in some bytes, one at each step.

        Raises:
            ProtocolError: the device broke a rule.
        """
        for first_byte, body in self._packets.feed(data):
            self.take(first_byte, body)
            yield None

    def take(self, first_byte: int, body: bytes) -> None:
        """Take one packet.

        Raises:
            ProtocolError: it is malformed, or a device must not send it.
        """
        if self.closed:
            return
        if first_byte & 0xF0 == frame.PUBLISH:
            self._take_publish(frame.parse_publish(first_byte, body))
        elif first_byte == frame.SUBSCRIBE:
            packet_id, filters = frame.parse_filters(body, with_qos=True)
            self._output.write(frame.suback(packet_id, [self._grant(*each) for each in filters]))
        elif first_byte == frame.UNSUBSCRIBE:
            packet_id, filters = frame.parse_filters(body, with_qos=False)
            if any(name == f"{_ANSWERS}#" for name, _ in filters):
                self._granted = None
            self._output.write(frame.unsuback(packet_id))
        elif first_byte == frame.PUBACK:
            frame.parse_puback(body)
        elif first_byte == frame.PINGREQ and not body:
            self._output.write(frame.PINGRESP)
        elif first_byte == frame.DISCONNECT and not body:
            self._end()
        else:
            raise frame.ProtocolError(f"Unexpected packet with the first byte {first_byte:#04x}")

    def flush(self) -> None:
        """Nothing waits: every packet is answered where it is taken."""

    def resume(self) -> None:
        """Nothing waits for the device to read."""

    def expire(self) -> None:
        """End the connection of a device that was silent for too long."""
        self._end()

    def lost(self) -> None:
        """Note that the connection has ended."""
        self.closed = True

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._output.close()

    def _grant(self, name: str, qos: int) -> int:
        if name != f"{_ANSWERS}#":
            return _REFUSED
        self._granted = min(qos, 1)
        return self._granted

    def _take_publish(self, packet: frame.Publish) -> None:
        """Carry out a request, and answer it.

        Raises:
            ProtocolError: its topic is unknown.
        """
        path, _, query = packet.topic.partition("?")
        parameters = dict(pair.partition("=")[::2] for pair in query.split("&"))
        request_id = parameters.get("$rid")
        if path not in (_REGISTER, _STATUS) or request_id is None:
            raise frame.ProtocolError(f"PUBLISH to an unknown topic: {packet.topic!r}")
        if packet.qos:
            self._output.write(frame.puback(packet.packet_id))
        try:
            if path == _REGISTER:
                body = bodies.parse(packet.payload)
                answer = self._registrations.register(self._id, self._proof, body)
            else:
                operation_id = parameters.get("operationId", "")
                answer = self._registrations.status(self._id, self._proof, operation_id)
        except HubError as error:
            reason = error.__cause__ or error
            self._registrations.refusals.info(
                "Refused the registration of %r: %s", self._id, printable(reason), error=error
            )
            if isinstance(error, errors.ConnectionForcefullyClosedOnFaultInjection):
                self._end()
                return
            document = errors.error_document(error, self._clock.now())
            self._answer(error.status, request_id, document, retries=is_transient(error))
        else:
            pending = answer["status"] == ASSIGNING
            status = _ACCEPTED if pending else _OK
            self._answer(status, request_id, answer, retries=pending)

    def _answer(self, status: int, request_id: str, document: JsonObject, *, retries: bool) -> None:
        """Send an answer to a device that is subscribed to it."""
        if self._granted is None:
            return
        topic = f"{_ANSWERS}{status}/?$rid={request_id}"
        if retries:
            topic += f"&retry-after={limits.RETRY_AFTER}"
        packet_id = 0
        if self._granted:
            packet_id = self._packet_id = self._packet_id % 0xFFFF + 1
        self._output.write(frame.publish(topic, dumps(document), packet_id=packet_id))
