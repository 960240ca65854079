"""One connected device: what it publishes as calls on the hub, what the hub sends it as topics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeserializationError,
    HubError,
    InvalidProtocolVersion,
    ServerError,
    error_document,
)
from emulator.hub.core.json import dumps, loads
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission, Delivery
from emulator.hub.messages.message import Message
from emulator.mqtt import property_bag, topics
from emulator.mqtt.frame import ProtocolError, Publish
from emulator.mqtt.property_bag import Bag
from emulator.mqtt.topics import Channel, Filter

log = logging.getLogger(__name__)

# A device sends to the same topic again and again: what one that isn't long says is remembered.
_REMEMBERED_TOPIC = 512

_TOPIC_BYTES = 0xFFFF  # MQTT 3.1.1, section 1.5.3; a bag is ASCII


class MqttLink(Struct, eq=False):
    """The hub's `DeviceLink` over MQTT.

    Everything that the hub itself sends goes out with QoS 0 (IoT Hub docs: MQTT support).

    Args:
        versioned: whether the device named an api-version; without one, a real hub takes its
            telemetry, and answers its twin requests with 400 (seen there).
        send: publishes a payload to a topic on this device's connection, and on no other.
        send_command: likewise, for a cloud-to-device message, which is to be acknowledged.
        congested: says whether much that was sent waits for the device to read it.
        drop: ends this device's connection.
    """

    hub: IotHub
    admission: Admission
    versioned: bool
    send: Callable[[str, bytes], None]
    send_command: Callable[[str, bytes, Delivery], None]
    congested: Callable[[], bool]
    drop: Callable[[HubError], None]
    subscriptions: set[Filter] = field(default_factory=set)
    in_flight: dict[int, str] = field(default_factory=dict)
    """The lock tokens of the messages that were sent with QoS 1, by packet id."""
    _telemetry: list[Message] = field(default_factory=list)
    _topic: str = ""
    """The topic of its last telemetry, and the properties that stand in it."""
    _bag: Bag | None = None

    @property
    def key(self) -> IdentityKey:
        """See `DeviceLink.key`."""
        return self.admission.key

    # --- from the hub

    def accepts_method(self, name: str) -> bool:
        """See `DeviceLink.accepts_method`."""
        return (
            Filter(Channel.METHODS) in self.subscriptions
            or Filter(Channel.METHODS, topics.method_name(name)) in self.subscriptions
        )

    @property
    def accepts_commands(self) -> bool:
        """See `DeviceLink.accepts_commands`; not while a device has much to read already."""
        return Filter(Channel.CLOUD_TO_DEVICE) in self.subscriptions and not self.congested()

    @property
    def unacknowledged(self) -> Collection[str]:
        """See `DeviceLink.unacknowledged`."""
        return self.in_flight.values()

    def deliver(self, delivery: Delivery) -> None:
        """See `DeviceLink.deliver`."""
        command = message = delivery
        topic = topics.cloud_to_device(
            self.key.device_id, property_bag.write(message.system, message.properties)
        )
        if len(topic) > _TOPIC_BYTES:
            # What a real hub does with such a message is not known. Those behind it must get by.
            log.warning("A message for %s has more properties than a topic can carry", self.key)
            self.hub.cloud_to_device.reject(self.key.device_id, command.lock_token)
            return
        self.send_command(topic, message.body, command)

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        """See `DeviceLink.invoke_method`."""
        self.send(topics.method_request(name, request_id), payload)

    def notify_desired(self, patch: bytes, version: int) -> None:
        """See `DeviceLink.notify_desired`; not sent to a device that is not subscribed to it."""
        if Filter(Channel.DESIRED) in self.subscriptions:
            self.send(topics.desired_patch(version), patch)

    def close(self, reason: HubError) -> None:
        """See `DeviceLink.close`."""
        self.drop(reason)

    # --- from the device

    def receive(self, packet: Publish) -> tuple[str, bytes] | None:
        """Take what the device published; gives the topic and payload of an answer, if any.

        Telemetry waits to be handed in, together with what came in the same breath.

        Raises:
            ProtocolError: it went to a topic that the hub doesn't know.
        """
        request = self._recall(packet.topic)
        if isinstance(request, Bag):
            self._telemetry.append(_message(packet, request))
            return None
        self.hub.links.note_activity(self.key)
        match request:
            case topics.MethodResponse(status, request_id):
                self.hub.methods.respond(self, request_id, status, packet.payload)
            case topics.TwinGet(request_id):
                return self._answer(request_id, self._read_twin)
            case topics.TwinPatch(request_id, version):
                return self._answer(request_id, lambda: self._report(packet.payload, version))
        return None

    def _recall(self, topic: str) -> Bag | topics.Request:
        """Read a topic; that of the last telemetry is remembered."""
        if topic == self._topic and self._bag is not None:
            return self._bag
        request = _read(topic, self.admission.key)
        if isinstance(request, Bag) and len(topic) <= _REMEMBERED_TOPIC:
            self._topic, self._bag = topic, request
        return request

    def hand_in(self) -> None:
        """Put the telemetry that was received into the hub."""
        if self._telemetry:
            self.hub.telemetry.ingest(self.admission, self._telemetry)
            self._telemetry = []

    def _read_twin(self) -> tuple[int, int | None, bytes]:
        self.hub.gate.enter(self.admission, Operation.READ_OWN_TWIN)
        return 200, None, dumps(self.hub.twins.read_own(self.key))

    def _report(self, payload: bytes, version: str | None) -> tuple[int, int | None, bytes]:
        try:
            patch = loads(payload)
        except ValueError as error:
            raise DeserializationError(f"The patch is not JSON: {error}") from None
        if version is not None and not (version.isascii() and version.isdigit()):
            raise ArgumentInvalid(f"$version is not a number: {version}")
        expected = None if version is None else int(version[:19])
        self.hub.gate.enter(self.admission, Operation.REPORT)
        return 204, self.hub.twins.report(self.key, patch, expected), b""

    def _answer(
        self, request_id: str | None, handle: Callable[[], tuple[int, int | None, bytes]]
    ) -> tuple[str, bytes] | None:
        """Carry out a twin request; one without an id, or nobody listening, gets no answer."""
        try:
            if not self.versioned:
                raise InvalidProtocolVersion
            status, version, body = handle()
        except HubError as error:
            status, version, body = _failure(error, self.hub.clock.now())
        except Exception:
            log.exception("A twin request of %s failed", self.key)
            status, version, body = _failure(ServerError(), self.hub.clock.now())
        if request_id is None or Filter(Channel.TWIN_RESPONSES) not in self.subscriptions:
            return None
        return topics.twin_response(status, request_id, version), body


def will_message(packet: Publish, key: IdentityKey) -> Message:
    """Make the message that is left by a device that is cut off (IoT Hub docs: MQTT support).

    Raises:
        ProtocolError: it doesn't go to the device's own telemetry topic, or is over the limit.
    """
    request = _read(packet.topic, key)
    if not isinstance(request, Bag):
        raise ProtocolError(f"a will for {packet.topic!r}")
    will = _message(packet, request)
    return replace(will, properties={**will.properties, "iothub-MessageType": "Will"})


def _read(topic: str, key: IdentityKey) -> Bag | topics.Request:
    """Read a topic that a device published to: telemetry as its properties, which nobody changes.

    Raises:
        ProtocolError: the hub knows no such topic, or it is another device's.
    """
    request = topics.parse_topic(topic, key)
    if isinstance(request, topics.Telemetry):
        return property_bag.parse(request.properties)
    return request


def _message(packet: Publish, bag: Bag) -> Message:
    """Make a message of a PUBLISH; its flags become properties (IoT Hub docs: MQTT; EdgeHub).

    Raises:
        ProtocolError: it is over the limit.
    """
    message = Message(packet.payload, bag.system, bag.properties)
    # Few are near the limit: properties take more in the topic than what is counted of them.
    if (
        len(packet.payload) + _TOPIC_BYTES > limits.D2C_MESSAGE_BYTES
        and message.size > limits.D2C_MESSAGE_BYTES
    ):
        raise ProtocolError(f"a message of {message.size} bytes")
    if packet.retain or packet.duplicate:
        flags: dict[str, str | None] = {}
        if packet.retain:
            flags["mqtt-retain"] = "true"
        if packet.duplicate:
            flags["mqtt-dup"] = "true"
        return replace(message, properties={**message.properties, **flags})
    return message


def _failure(error: HubError, now: datetime) -> tuple[int, int | None, bytes]:
    # The body matters: the SDK for Node tells a failure by its errorCode, not by the topic.
    return error.status, None, dumps(error_document(error, now))
