"""A connected device as the hub sees it: an object that it can talk to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from emulator.hub.core.errors import HubError
from emulator.hub.identities.identity import IdentityKey


class Admission(Struct, frozen=True):
    """What the gate found when a device or module authenticated itself.

    Args:
        expires: when its credentials expire, in seconds since the epoch; infinity for a
            certificate.
        generation_id: of its identity.
        auth_method: how it authenticated, as JSON text: the hub stamps it on messages.
        model_id: the model that it implements, "" if it names none.
    """

    key: IdentityKey
    expires: float
    generation_id: str
    auth_method: str
    model_id: str = ""


class Delivery(Struct, frozen=True):
    """A cloud-to-device message on its way to a device, under a lock.

    Args:
        redelivered: the device, or an earlier connection of it, received the message before.
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
    """One connected device or module; a head implements it.

    None of its methods waits: a link that can't send what it is given closes itself.
    """

    @property
    def key(self) -> IdentityKey:
        """The identity that is connected."""

    def accepts_method(self, name: str) -> bool:
        """Return whether the device is subscribed to the direct method `name`."""

    @property
    def accepts_commands(self) -> bool:
        """Whether the device is subscribed to cloud-to-device messages."""

    @property
    def unacknowledged(self) -> Collection[str]:
        """The lock tokens of the messages that the device has not acknowledged yet."""

    def deliver(self, delivery: Delivery) -> None:
        """Send a cloud-to-device message; the head calls the hub when the device settles it."""

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        """Send the request of a direct method; `payload` is JSON text."""

    def notify_desired(self, patch: bytes, version: int) -> None:
        """Send a change of the desired properties; `patch` is JSON text."""

    def close(self, reason: HubError) -> None:
        """Close the connection; the hub no longer knows the link."""
