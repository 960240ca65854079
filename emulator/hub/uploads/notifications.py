"""File notifications: one queue for the hub, which tells services of files that were uploaded.

A service receives a notification under a lock, and completes or abandons it, as a batch of feedback
(IoT Hub docs: file upload notifications).
"""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Key, Store
from emulator.hub.core.times import iso
from emulator.hub.core.turns import SharedTurn
from emulator.hub.feed import Change, Feed
from emulator.hub.messages import locks
from emulator.hub.messages.due_times import DueTimes
from emulator.hub.messages.locks import Queued
from emulator.hub.uploads.storage import StoredBlob

_QUEUE: Key = ("fileNotifications",)


CONTENT_TYPE = "application/vnd.microsoft.iothub.filenotification.json"
"""Of a notification, over AMQP and HTTPS. C# throws on another one (its source)."""


class FileNotification(Queued, frozen=True, kw_only=True):
    """Tells services of a file.

    Args:
        device_id: the device.
        blob_name: `{device id}/{name}`.
        blob: the file in the storage.
    """

    device_id: str
    blob_name: str
    blob: StoredBlob

    def document(self) -> JsonObject:
        """Return the body of the notification.

        Returns:
            `{"deviceId", "blobUri", "blobName", "lastUpdatedTime", "blobSizeInBytes",
            "enqueuedTimeUtc"}`, with the times as a real hub writes them (IoT Hub docs).
        """
        return {
            "deviceId": self.device_id,
            "blobUri": self.blob.uri,
            "blobName": self.blob_name,
            "lastUpdatedTime": f"{self.blob.modified:%Y-%m-%dT%H:%M:%S}+00:00",
            "blobSizeInBytes": self.blob.size,
            "enqueuedTimeUtc": iso(self.enqueued),
        }


class NotificationQueue(Struct, frozen=True):
    """The notifications that no service has completed yet, in sequence order."""

    notifications: tuple[FileNotification, ...] = ()
    next_sequence_number: int = 1

    @property
    def key(self) -> Key:
        """See `Record.key`: a hub has one such queue."""
        return _QUEUE


class FileNotificationQueued(Change, frozen=True):
    """A notification waits for services: it is new, or its receiver has returned it."""

    notification: FileNotification


class FileNotifications:
    """The file notifications of a hub.

    A real hub has a switch for them, which is off at first. Here they are always on: one that no
    service receives expires, and a switch would only be one more thing to forget.
    """

    def __init__(self, store: Store, feed: Feed, clock: Clock, turn: SharedTurn) -> None:
        self._store = store
        self._feed = feed
        self._clock = clock
        self._due = DueTimes(clock, turn, lambda _: self._settle())

    def resume(self) -> None:
        """Watch the locks that an earlier run has left."""
        self._due.watch("", self._stored().notifications)

    def stop(self) -> None:
        """Watch no lock any more."""
        self._due.stop()

    def receive(self) -> FileNotification | None:
        """Return the next notification, under a lock, or None if no notification waits."""
        queue, now = self._queue(), self._clock.now()
        until = now + timedelta(seconds=limits.FILE_NOTIFICATION_LOCK)
        notifications, lent = locks.lend(queue.notifications, until)
        self._commit(notifications)
        return lent

    def complete(self, token: str) -> None:
        """Delete a notification that a service has read.

        Raises:
            DeviceMessageLockLost: no notification has this lock.
        """
        notifications, _ = locks.end(self._queue().notifications, token)
        self._commit(notifications)

    def abandon(self, token: str) -> None:
        """Return a notification to the queue; after the tenth time it is deleted.

        Raises:
            DeviceMessageLockLost: no notification has this lock.
        """
        notifications, _ = locks.abandon(
            self._queue().notifications, token, limits.FILE_NOTIFICATION_DELIVERIES
        )
        self._commit(notifications)

    def with_new(self, device_id: str, blob_name: str, blob: StoredBlob) -> NotificationQueue:
        """Return the queue with one more notification, which the caller commits."""
        queue, now = self._queue(), self._clock.now()
        number = queue.next_sequence_number
        notification = FileNotification(
            sequence_number=number,
            enqueued=now,
            expires=now + timedelta(seconds=limits.FILE_NOTIFICATION_TIME_TO_LIVE),
            device_id=device_id,
            blob_name=blob_name,
            blob=blob,
        )
        notifications = (*queue.notifications, notification)[-limits.FILE_NOTIFICATIONS :]
        return NotificationQueue(notifications, number + 1)

    def _queue(self) -> NotificationQueue:
        """Return the queue as it is now: without expired notifications and lapsed locks."""
        queue = self._stored()
        notifications, _ = locks.settle(queue.notifications, self._clock.now())
        return replace(queue, notifications=notifications)

    def _stored(self) -> NotificationQueue:
        return self._store.get(NotificationQueue, _QUEUE) or NotificationQueue()

    def _settle(self) -> tuple[FileNotification, ...]:
        """Return what waits and what is lent, without what is due."""
        notifications = self._queue().notifications
        self._commit(notifications)
        return notifications

    def _commit(self, notifications: tuple[FileNotification, ...]) -> None:
        before = self._stored()
        if notifications is not before.notifications:
            self._store.commit(put=(replace(before, notifications=notifications),))
            self._due.watch("", notifications)
            for each in locks.returned(before.notifications, notifications):
                self._feed.publish(FileNotificationQueued(each))
