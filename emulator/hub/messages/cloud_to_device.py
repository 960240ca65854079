"""Cloud-to-device messages as the hub handles them: each device's queue, pushed to its link when it
listens, pulled from over HTTPS; and the feedback that their senders asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime

from emulator.hub.core import limits
from emulator.hub.core.errors import DeviceNotFound
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Store
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.connections import Connections, DeviceLink
from emulator.hub.messages import commands as cloud_to_device
from emulator.hub.messages import feedback
from emulator.hub.messages.commands import Change, Command, CommandQueue, Outcome
from emulator.hub.messages.feedback import Batch, FeedbackQueue
from emulator.hub.messages.message import Message


class Commands:
    """The cloud-to-device messages of a hub."""

    def __init__(
        self, store: Store, connections: Connections, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._connections = connections
        self._clock = clock

    def send(self, device_id: str, message: Message) -> None:
        """Queue a message for a device, connected or not (IoT Hub docs: cloud-to-device).

        Raises:
            DeviceNotFound: it is not registered, or disabled.
            MessageTooLarge, ArgumentInvalid, InvalidMessageExpiryTime
            DeviceMaximumQueueDepthExceeded: 50 messages are pending.
        """
        device = self._store.identity(IdentityKey(device_id))
        if device is None or not device.enabled:
            raise DeviceNotFound(device_id)
        self._commit(cloud_to_device.send(self._queue(device_id), message, self._clock()))
        self._push_to(device_id)

    def _push_to(self, device_id: str) -> None:
        link = self._connections.link(IdentityKey(device_id))
        if link is not None:
            self.push(link)

    def push(self, link: DeviceLink) -> None:
        """Hand a device all that waits for it, for as long as it listens."""
        while (
            link.key.module_id is None
            and link.accepts_commands
            and self._connections.link(link.key) is link
            and (command := self._lend(link.key.device_id, lock_seconds=None))
        ):
            link.deliver(command)

    def receive(self, device_id: str) -> Command | None:
        """Take the next message under a lock of a minute; None if none waits.

        If the lock lapses, the message goes to the device's connection, if it has one by then.
        """
        command = self._lend(device_id, lock_seconds=limits.C2D_LOCK)
        if command is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(limits.C2D_LOCK, self._push_to, device_id)
        return command

    def _lend(self, device_id: str, *, lock_seconds: float | None) -> Command | None:
        queue = self._queue(device_id)
        if not queue.commands:
            return None
        change = cloud_to_device.receive(queue, self._clock(), lock_seconds)
        self._commit(change)
        return change.command

    def complete(self, device_id: str, token: str) -> None:
        """End a message: the device has taken it.

        Raises:
            DeviceMessageLockLost
        """
        self._connections.heard_of(IdentityKey(device_id), self._clock())
        self._commit(cloud_to_device.complete(self._queue(device_id), token, self._clock()))

    def reject(self, device_id: str, token: str) -> None:
        """End a message: the device doesn't want it.

        Raises:
            DeviceMessageLockLost
        """
        self._commit(cloud_to_device.reject(self._queue(device_id), token, self._clock()))

    def abandon(self, device_id: str, token: str) -> None:
        """Give a message back; after ten times it is dead.

        Raises:
            DeviceMessageLockLost
        """
        self._commit(cloud_to_device.abandon(self._queue(device_id), token, self._clock()))
        self._push_to(device_id)

    def release(self, device_id: str, tokens: Collection[str]) -> None:
        """Give back what a connection held that is gone."""
        if tokens:
            queue = self._queue(device_id)
            self._commit(cloud_to_device.release(queue, tokens, self._clock()))

    def purge(self, device_id: str) -> int:
        """End all messages of a device; tells how many there were.

        Raises:
            DeviceNotFound
        """
        if self._store.identity(IdentityKey(device_id)) is None:
            raise DeviceNotFound(device_id)
        queue, now = self._queue(device_id), self._clock()
        self._commit(cloud_to_device.purge(queue, now))
        return queue.pending(now)

    def receive_feedback(self) -> Batch | None:
        """Take the next batch of feedback under a lock; None if there is none."""
        now = self._clock()
        for device_id in self._store.devices_with_commands():
            change = cloud_to_device.expire(self._queue(device_id), now)
            if change.outcomes:
                self._commit(change)
        queue, batch = feedback.receive(self._store.feedback(), now)
        self._store.commit(put=(queue,))
        return batch

    def complete_feedback(self, token: str) -> None:
        """Delete a batch that a service has read.

        Raises:
            DeviceMessageLockLost
        """
        queue = feedback.complete(self._store.feedback(), token, self._clock())
        self._store.commit(put=(queue,))

    def abandon_feedback(self, token: str) -> None:
        """Give a batch back; after ten times it is deleted.

        Raises:
            DeviceMessageLockLost
        """
        queue = feedback.abandon(self._store.feedback(), token, self._clock())
        self._store.commit(put=(queue,))

    def forget(self, key: IdentityKey) -> None:
        """Discard the feedback on a device that was deleted."""
        if key.module_id is None:
            queue = feedback.discard(self._store.feedback(), key.device_id, self._clock())
            self._store.commit(put=(queue,))

    def _queue(self, device_id: str) -> CommandQueue:
        return self._store.command_queue(device_id)

    def _commit(self, change: Change) -> None:
        records = [self._record(outcome) for outcome in change.outcomes]
        put: list[CommandQueue | FeedbackQueue] = [change.queue]
        if records:
            put.append(feedback.add(self._store.feedback(), records, self._clock()))
        self._store.commit(put=put)

    def _record(self, outcome: Outcome) -> JsonObject:
        identity = self._store.identity(IdentityKey(outcome.device_id))
        return feedback.record(outcome, identity.generation_id if identity else "")
