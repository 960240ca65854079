"""The link to a connected device: the object through which the hub sends to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from emulator.hub.core.errors import HubError
from emulator.hub.feed import Change
from emulator.hub.identities.identity import IdentityKey


class Admission(Struct, frozen=True, gc=False, omit_defaults=True):
    """The result of the gate for a device or module that authenticated itself.

    Args:
        key: its identity.
        expires: the hub time at which its credentials expire, in seconds since the epoch;
            infinity for a certificate.
        generation_id: the generation id of its identity.
        auth_method: the authentication method as JSON text; the hub adds it to messages.
        model_id: the model that it implements; "" if it names no model.
    """

    key: IdentityKey
    expires: float
    generation_id: str
    auth_method: str
    model_id: str = ""


class Delivery(Struct, frozen=True):
    """A cloud-to-device message with a lock, for a device.

    Args:
        redelivered: whether the device received the message before, also on another connection.
        system: system properties by their AMQP names.
        properties: application properties; None is a property without a value.
    """

    lock_token: str
    sequence_number: int
    enqueued: datetime
    expires: datetime
    delivery_count: int
    redelivered: bool
    ack: str
    body: bytes
    system: Mapping[str, str]
    properties: Mapping[str, str | None]


class DeviceLink(Protocol):
    """A connected device or module; a head implements it.

    No method waits. A link that cannot send closes itself.
    """

    @property
    def key(self) -> IdentityKey:
        """The identity that is connected."""

    @property
    def protocol(self) -> str:
        """The protocol that it speaks: `MQTT` or `AMQP`."""

    def accepts_method(self, name: str) -> bool:
        """Return whether the device is subscribed to the direct method `name`."""

    @property
    def accepts_commands(self) -> bool:
        """Whether the device is subscribed to cloud-to-device messages."""

    @property
    def unacknowledged(self) -> Collection[str]:
        """The lock tokens of the messages that the device has not acknowledged yet."""

    @property
    def lock_seconds(self) -> float | None:
        """How long a message is locked for the device; None is until the message expires."""

    def deliver(self, delivery: Delivery) -> None:
        """Send a cloud-to-device message; the head calls the hub when the device settles it."""

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        """Send a direct method; `payload` is JSON text, or empty."""

    def notify_desired(self, patch: bytes, version: int) -> None:
        """Send a change of the desired properties; `patch` is JSON text."""

    def close(self, reason: HubError) -> None:
        """Close the connection; the hub has already removed the link."""

    def cut(self) -> None:
        """Break the connection without an orderly end; the hub has already removed the link."""

    def detach(self, part: str) -> None:
        """End a part of an AMQP connection, of `fault.LINKS`; other connections have no parts."""

    def slow(self, rate: int | None) -> None:
        """Pace the connection to a rate in bytes per second, each way; None ends that."""


class Connected(Change, frozen=True):
    """A device or module connected."""

    admission: Admission
    time: datetime


class Subscribed(Change, frozen=True):
    """A connected device subscribed to direct methods or to cloud-to-device messages."""

    link: DeviceLink


class Disconnected(Change, frozen=True):
    """A connection ended; the device or the hub closed it.

    Args:
        reason: the reason; `DeviceNotOnline` if the device closed it.
    """

    link: DeviceLink
    reason: HubError
    time: datetime
