"""Cloud-to-device messages: a device's queue, and what becomes of each message in it.

A queue is a value. An operation returns a new one, and the outcomes of the messages that ended.
Each operation first settles what the time has changed: lapsed locks, and expired messages.

The rules are those of IoT Hub docs: cloud-to-device messages.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import errors, limits
from emulator.hub.core.store import Key
from emulator.hub.links.link import Delivery
from emulator.hub.messages import locks
from emulator.hub.messages.locks import Queued
from emulator.hub.messages.message import Message

# The characters are those of IoT Hub docs: create and read messages.
_ID = re.compile(rf"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{{0,{limits.MESSAGE_ID_LENGTH}}}", re.ASCII)
_PROPERTY_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+", re.ASCII)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_UTC_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?Z?", re.ASCII)


class Status(enum.StrEnum):
    """How a message ended, in the words of feedback."""

    SUCCESS = "Success"
    EXPIRED = "Expired"
    DELIVERY_COUNT_EXCEEDED = "DeliveryCountExceeded"
    REJECTED = "Rejected"
    PURGED = "Purged"


class Ack(enum.StrEnum):
    """The outcomes that need feedback: the application property `iothub-ack`."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    FULL = "full"

    def wants(self, status: Status) -> bool:
        """Return whether an outcome needs feedback at this level."""
        if self in (Ack.NONE, Ack.FULL):
            return self is Ack.FULL
        return (self is Ack.POSITIVE) == (status is Status.SUCCESS)


class Command(Queued, frozen=True, kw_only=True):
    """One message in a device's queue, which the service API calls a command."""

    message: Message
    ack: Ack

    def delivery(self) -> Delivery:
        """Return the message as a device receives it, under the present lock."""
        return Delivery(
            lock_token=self.lock_token,
            sequence_number=self.sequence_number,
            enqueued=self.enqueued,
            expires=self.expires,
            delivery_count=self.delivery_count,
            redelivered=self.handed_out,
            ack=self.ack.value,
            body=self.message.body,
            system=self.message.system,
            properties=self.message.properties,
        )


class CommandQueue(Struct, frozen=True):
    """The messages that a device has not settled yet, in sequence order, the locked ones too."""

    device_id: str
    commands: tuple[Command, ...] = ()
    next_sequence_number: int = 1

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return (self.device_id,)

    def pending(self, now: datetime) -> int:
        """Return the number of messages that have not expired."""
        return len(locks.settle(self.commands, now)[0])


class Outcome(NamedTuple):
    """How a message ended, and when; `message_id` is None if its sender gave it none."""

    message_id: str | None
    status: Status
    device_id: str
    time: datetime
    ack: Ack

    @property
    def wanted(self) -> bool:
        """Whether the sender of the message asked for feedback on this outcome."""
        return self.ack.wants(self.status)


class Change(NamedTuple):
    """The result of an operation on a queue.

    Args:
        queue: the new queue; the old one if nothing has changed.
        outcomes: the messages that ended.
        command: the message that `receive` has locked.
    """

    queue: CommandQueue
    outcomes: tuple[Outcome, ...]
    command: Command | None = None


def send(queue: CommandQueue, message: Message, now: datetime) -> Change:
    """Queue a message for the device.

    Args:
        queue: the queue of the device.
        message: it is queued unchanged. Its `absolute-expiry-time` is a UTC time.
        now: the time, in UTC.

    Raises:
        MessageTooLarge
        ArgumentInvalid: a message or correlation id, an application property's name, the ack level
            or the expiry time is invalid.
        InvalidMessageExpiryTime: it expires in the past, or more than two days from now.
        DeviceMaximumQueueDepthExceeded: 50 messages are pending.
        DeviceMaximumQueueSizeExceeded: the pending messages are too large.
    """
    if message.size > limits.C2D_MESSAGE_BYTES:
        raise errors.MessageTooLarge(
            f"The message is {message.size} bytes; {limits.C2D_MESSAGE_BYTES} are allowed."
        )
    _check_properties(message)
    ack, expires = _ack(message), _expiry(message, now)
    queue, outcomes, _ = expire(queue, now)
    if len(queue.commands) >= limits.C2D_QUEUE_DEPTH:
        raise errors.DeviceMaximumQueueDepthExceeded
    waiting = sum(command.message.memory for command in queue.commands)
    if waiting + message.memory > limits.C2D_QUEUE_BYTES:
        raise errors.DeviceMaximumQueueSizeExceeded
    number = queue.next_sequence_number
    command = Command(
        sequence_number=number, message=message, enqueued=now, expires=expires, ack=ack
    )
    commands = (*queue.commands, command)
    return Change(replace(queue, commands=commands, next_sequence_number=number + 1), outcomes)


def receive(
    queue: CommandQueue,
    now: datetime,
    lock_seconds: float | None,
    *,
    of_connection: bool = False,
    skip: int = 0,
) -> Change:
    """Lock the first message that waits; `command` is None if no message waits.

    If `lock_seconds` is None, the lock holds until the message expires. For `of_connection` and
    `skip`, see `locks.lend`.
    """
    queue, outcomes, _ = expire(queue, now)
    until = None if lock_seconds is None else now + timedelta(seconds=lock_seconds)
    commands, command = locks.lend(queue.commands, until, of_connection=of_connection, skip=skip)
    if command is None:
        return Change(queue, outcomes)
    return Change(replace(queue, commands=commands), outcomes, command)


def complete(queue: CommandQueue, token: str, now: datetime) -> Change:
    """End a message: the device has accepted it.

    Raises:
        DeviceMessageLockLost: no message has this lock.
    """
    return _end(queue, token, Status.SUCCESS, now)


def reject(queue: CommandQueue, token: str, now: datetime) -> Change:
    """End a message: the device has refused it.

    Raises:
        DeviceMessageLockLost: no message has this lock.
    """
    return _end(queue, token, Status.REJECTED, now)


def abandon(queue: CommandQueue, token: str, now: datetime) -> Change:
    """Return a message to the queue, which counts as a delivery; after the tenth it ends.

    Raises:
        DeviceMessageLockLost: no message has this lock.
    """
    queue, outcomes, _ = expire(queue, now)
    commands, ended = locks.abandon(queue.commands, token, limits.C2D_DELIVERIES)
    if ended is not None:
        outcomes += (_outcome(queue, ended, Status.DELIVERY_COUNT_EXCEEDED, now),)
    # Again: perhaps only the lock kept the message from expiring.
    queue, expired, _ = expire(replace(queue, commands=commands), now)
    return Change(queue, outcomes + expired)


def release(queue: CommandQueue, tokens: Collection[str], now: datetime) -> Change:
    """Return the messages of a lost connection to the queue; this is not counted as a delivery."""
    return expire(replace(queue, commands=locks.release(queue.commands, tokens)), now)


def purge(queue: CommandQueue, now: datetime) -> Change:
    """End all messages, the locked ones too.

    What a real hub does with locked messages is unknown. A service that purges wants an empty
    queue, and a device that never acknowledges is a good reason to purge.
    """
    queue, outcomes, _ = expire(queue, now)
    if not queue.commands:
        return Change(queue, outcomes)
    outcomes += tuple(_outcome(queue, each, Status.PURGED, now) for each in queue.commands)
    return Change(replace(queue, commands=()), outcomes)


def expire(queue: CommandQueue, now: datetime) -> Change:
    """Remove the locks that have lapsed, and end the messages that have expired."""
    kept, expired = locks.settle(queue.commands, now)
    if kept is queue.commands:
        return Change(queue, ())
    outcomes = tuple(_outcome(queue, each, Status.EXPIRED, each.expires) for each in expired)
    return Change(replace(queue, commands=kept), outcomes)


def _end(queue: CommandQueue, token: str, status: Status, now: datetime) -> Change:
    queue, outcomes, _ = expire(queue, now)
    commands, command = locks.end(queue.commands, token)
    outcomes += (_outcome(queue, command, status, now),)
    return Change(replace(queue, commands=commands), outcomes)


def _outcome(queue: CommandQueue, command: Command, status: Status, time: datetime) -> Outcome:
    message_id = command.message.system.get("message-id")
    return Outcome(message_id, status, queue.device_id, time, command.ack)


# --- checking a message


def _check_properties(message: Message) -> None:
    for name in ("message-id", "correlation-id"):
        if not _ID.fullmatch(message.system.get(name, "")):
            raise errors.ArgumentInvalid(
                f"The {name} is not valid: up to {limits.MESSAGE_ID_LENGTH} ASCII letters, digits "
                "and - : . + % _ # * ? ! ( ) , = @ ; $ ' are allowed"
            )
    # The docs allow no other characters in values either. But a value in their own example of a
    # received message (MQTT support) is `a string`, so values are not checked.
    for name in message.properties:
        if not _PROPERTY_NAME.fullmatch(name):
            raise errors.ArgumentInvalid(
                f"The property name '{name}' is not valid: ASCII letters, digits and "
                "! # $ % & ' * + - . ^ _ ` | ~ are allowed"
            )
    # The values become headers over HTTPS.
    values = [*message.system.values(), *filter(None, message.properties.values())]
    if any(_CONTROLS.search(value) for value in values):
        raise errors.ArgumentInvalid("A property's value has a control character")


def _ack(message: Message) -> Ack:
    level = message.properties.get("iothub-ack", Ack.NONE.value)
    try:
        return Ack(level or "")
    except ValueError:
        raise errors.ArgumentInvalid(
            f"iothub-ack ({level}) must be none, positive, negative or full"
        ) from None


def _expiry(message: Message, now: datetime) -> datetime:
    text = message.system.get("absolute-expiry-time")
    if text is None:
        return now + timedelta(seconds=limits.C2D_TIME_TO_LIVE)
    expires = _utc_time(text)
    if not now < expires <= now + timedelta(seconds=limits.C2D_TIME_TO_LIVE_MAX):
        raise errors.InvalidMessageExpiryTime(
            f"The message would expire at {text}: that must be in the future, and at most "
            f"{limits.C2D_TIME_TO_LIVE_MAX // 3600} hours from now."
        )
    return expires


def _utc_time(text: str) -> datetime:
    try:
        match = _UTC_TIME.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return datetime.fromisoformat(f"{match[1]}.{match[2] or '':0<6}+00:00")
    except ValueError:
        raise errors.ArgumentInvalid(
            f"absolute-expiry-time ({text}) is not a UTC time such as 2026-01-31T14:46:08.123Z"
        ) from None
