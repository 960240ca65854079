"""One connected device: what it publishes as calls on the hub, what the hub sends it as topics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from emulator.hub.errors import (
    ArgumentInvalid,
    DeserializationError,
    HubError,
    ServerError,
    flat_body,
)
from emulator.hub.hub import IotHub
from emulator.hub.identities import IdentityKey
from emulator.hub.jsontext import dumps, loads
from emulator.hub.times import utc_now
from emulator.mqtt import topics
from emulator.mqtt.packets import Publish
from emulator.mqtt.topics import Channel, Filter

log = logging.getLogger(__name__)


@dataclass(eq=False)
class MqttLink:
    """The hub's `DeviceLink` over MQTT.

    Everything that the hub itself sends goes out with QoS 0 (IoT Hub docs: MQTT support).

    Args:
        send: publishes a payload to a topic on this device's connection, and on no other.
        drop: ends this device's connection.
    """

    hub: IotHub
    key: IdentityKey
    send: Callable[[str, bytes], None]
    drop: Callable[[HubError], None]
    subscriptions: set[Filter] = field(default_factory=set)

    # --- from the hub

    def accepts_method(self, name: str) -> bool:
        """See `DeviceLink.accepts_method`."""
        return (
            Filter(Channel.METHODS) in self.subscriptions
            or Filter(Channel.METHODS, topics.method_name(name)) in self.subscriptions
        )

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

        Raises:
            ProtocolError: it went to a topic that the hub doesn't know.
        """
        request = topics.parse_topic(packet.topic, self.key)
        self.hub.heard_of(self)
        match request:
            case topics.MethodResponse(status, request_id):
                self.hub.complete_method(self, request_id, status, packet.payload)
            case topics.TwinGet(request_id):
                return self._answer(request_id, self._read_twin)
            case topics.TwinPatch(request_id, version):
                return self._answer(request_id, lambda: self._report(packet.payload, version))
            case topics.Telemetry():
                pass  # taken and acknowledged; there is no event log to keep it in
        return None

    def _read_twin(self) -> tuple[int, int | None, bytes]:
        return 200, None, dumps(self.hub.read_twin(self.key))

    def _report(self, payload: bytes, version: str | None) -> tuple[int, int | None, bytes]:
        try:
            patch = loads(payload)
        except ValueError as error:
            raise DeserializationError(f"The patch is not JSON: {error}") from None
        if version is not None and not (version.isascii() and version.isdigit()):
            raise ArgumentInvalid(f"$version is not a number: {version}")
        expected = None if version is None else int(version[:19])
        return 204, self.hub.report(self.key, patch, expected), b""

    def _answer(
        self, request_id: str | None, handle: Callable[[], tuple[int, int | None, bytes]]
    ) -> tuple[str, bytes] | None:
        """Carry out a twin request; one without an id, or nobody listening, gets no answer."""
        try:
            status, version, body = handle()
        except HubError as error:
            status, version, body = _failure(error)
        except Exception:
            log.exception("A twin request of %s failed", self.key)
            status, version, body = _failure(ServerError())
        if request_id is None or Filter(Channel.TWIN_RESPONSES) not in self.subscriptions:
            return None
        return topics.twin_response(status, request_id, version), body


def _failure(error: HubError) -> tuple[int, int | None, bytes]:
    # The body matters: the SDK for Node tells a failure by its errorCode, not by the topic.
    return error.status, None, dumps(flat_body(error, utc_now()))
