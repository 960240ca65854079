"""Cloud-to-device messages: a queue for each device, and the feedback that their senders asked for.

A connected device that is subscribed receives its messages at once. A device that speaks HTTPS asks
for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import DeviceNotFound, ServiceUnavailable
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Record, Store
from emulator.hub.core.turns import SharedTurn
from emulator.hub.faults.faults import Faults
from emulator.hub.feed import Change, Feed
from emulator.hub.identities.identity import Identity, IdentityDeleted, IdentityKey
from emulator.hub.links.link import Delivery, DeviceLink, Disconnected, Subscribed
from emulator.hub.links.links import Links
from emulator.hub.messages import commands, feedback, locks
from emulator.hub.messages.commands import Command, CommandQueue, Outcome
from emulator.hub.messages.due_times import DueTimes
from emulator.hub.messages.feedback import FEEDBACK, Batch, FeedbackQueue
from emulator.hub.messages.message import Message


class CommandSent(Change, frozen=True):
    """A service has sent a message to a device; it is in the device's queue."""

    device_id: str
    command: Command


class CommandEnded(Change, frozen=True):
    """A message has left its device's queue."""

    outcome: Outcome


class FeedbackQueued(Change, frozen=True):
    """Feedback waits for services: it is new, or its receiver has returned it."""


class CloudToDevice:
    """The cloud-to-device messages of a hub."""

    def __init__(
        self,
        store: Store,
        links: Links,
        feed: Feed,
        clock: Clock,
        turn: SharedTurn,
        faults: Faults,
    ) -> None:
        self._store = store
        self._links = links
        self._feed = feed
        self._clock = clock
        self._faults = faults
        self._due = DueTimes(clock, turn, self._settle)  # of each device
        self._feedback_due = DueTimes(clock, turn, lambda _: self._settle_feedback())
        # By device, a message that waits for the one behind it, and whether its wait is over.
        self._held: dict[str, tuple[int, bool]] = {}
        feed.subscribe(Subscribed, lambda change: self.push(change.link))
        feed.subscribe(
            Disconnected,
            lambda change: self.release(change.link.key.device_id, change.link.unacknowledged),
        )
        feed.subscribe(IdentityDeleted, self._discard_feedback)
        # The connections of an earlier run ended with it.
        for queue in store.scan(CommandQueue):
            held = [each.lock for each in queue.commands if each.lock is not None]
            self.release(queue.device_id, [each.token for each in held if each.of_connection])

    def resume(self) -> None:
        """Watch the queues that an earlier run has left."""
        for queue in self._store.scan(CommandQueue):
            self._due.watch(queue.device_id, queue.commands)
        self._feedback_due.watch("", self._feedback().batches)

    def stop(self) -> None:
        """Watch no queue any more."""
        self._due.stop()
        self._feedback_due.stop()

    # --- for services

    def send(self, device_id: str, message: Message) -> None:
        """Queue a message for a device, connected or not (IoT Hub docs: cloud-to-device).

        Raises:
            DeviceNotFound: the device is not registered, or disabled.
            MessageTooLarge, ArgumentInvalid, InvalidMessageExpiryTime
            DeviceMaximumQueueDepthExceeded: 50 messages are pending.
        """
        device = self._store.get(Identity, IdentityKey(device_id))
        if device is None or not device.enabled:
            raise DeviceNotFound(device_id)
        queue = self._queue(device_id)
        change = commands.send(queue, message, self._clock.now())
        self._commit(queue, change)
        self._due.watch(device_id, change.queue.commands)
        self._feed.publish(CommandSent(device_id, change.queue.commands[-1]))
        self._push_to(device_id)

    def purge(self, device_id: str) -> int:
        """End all messages of a device, and return their number.

        Raises:
            DeviceNotFound
        """
        if self._store.get(Identity, IdentityKey(device_id)) is None:
            raise DeviceNotFound(device_id)
        queue, now = self._queue(device_id), self._clock.now()
        self._commit(queue, commands.purge(queue, now))
        return queue.pending(now)

    def pending(self, device_id: str) -> int:
        """Return the number of messages that a device has not settled."""
        queue = self._queue(device_id)
        return queue.pending(self._clock.now()) if queue.commands else 0

    def receive_feedback(self) -> Batch | None:
        """Return the next batch of feedback, under a lock, or None if nothing waits."""
        before = self._feedback()
        after, batch = feedback.receive(before, self._clock.now())
        self._commit_feedback(before, after)
        return batch

    def complete_feedback(self, token: str) -> None:
        """Delete a batch that a service has read.

        Raises:
            DeviceMessageLockLost
        """
        before = self._feedback()
        self._commit_feedback(before, feedback.complete(before, token, self._clock.now()))

    def abandon_feedback(self, token: str) -> None:
        """Return a batch to the queue; after the tenth time it is deleted.

        Raises:
            DeviceMessageLockLost
        """
        before = self._feedback()
        self._commit_feedback(before, feedback.abandon(before, token, self._clock.now()))

    # --- for devices

    def push(self, link: DeviceLink) -> None:
        """Send a device all messages that wait for it, while it accepts them.

        While the store can't write, they wait for the next message or connection.
        """
        with contextlib.suppress(ServiceUnavailable):
            self._push_all(link)

    def _push_all(self, link: DeviceLink) -> None:
        device_id, lock_seconds = link.key.device_id, link.lock_seconds
        while (
            link.key.module_id is None
            and link.accepts_commands
            and self._links.link(link.key) is link
            and (command := self._lend(device_id, lock_seconds, of_connection=True))
        ):
            link.deliver(command.delivery())

    def receive(self, device_id: str) -> Delivery | None:
        """Return the next message, under a lock of a minute, or None if no message waits.

        If the lock lapses, the message goes to the device's connection, if there is one by then.
        """
        command = self._lend(device_id, limits.C2D_LOCK, of_connection=False)
        return None if command is None else command.delivery()

    def release(self, device_id: str, tokens: Collection[str]) -> None:
        """Return the messages that a receiver has not settled to the queue, as it is gone."""
        queue = self._queue(device_id)
        if tokens and queue.commands:
            self._commit(queue, commands.release(queue, tokens, self._clock.now()))

    def complete(self, device_id: str, token: str) -> None:
        """End a message: the device has accepted it.

        Raises:
            DeviceMessageLockLost
        """
        self._links.note_activity(IdentityKey(device_id))
        queue = self._queue(device_id)
        if self._faults.active and self._loses_acknowledgment(queue, token):
            self.abandon(device_id, token)
            return
        self._commit(queue, commands.complete(queue, token, self._clock.now()))

    def reject(self, device_id: str, token: str) -> None:
        """End a message: the device has refused it.

        Raises:
            DeviceMessageLockLost
        """
        queue = self._queue(device_id)
        self._commit(queue, commands.reject(queue, token, self._clock.now()))

    def abandon(self, device_id: str, token: str) -> None:
        """Return a message to the queue; after the tenth time it ends.

        Raises:
            DeviceMessageLockLost
        """
        queue = self._queue(device_id)
        self._commit(queue, commands.abandon(queue, token, self._clock.now()))
        self._push_to(device_id)

    # ---

    def _push_to(self, device_id: str) -> None:
        link = self._links.link(IdentityKey(device_id))
        if link is not None:
            self.push(link)

    def _lend(
        self, device_id: str, lock_seconds: float | None, *, of_connection: bool
    ) -> Command | None:
        queue = self._queue(device_id)
        if not queue.commands:
            return None
        skip = self._reorders(queue) if self._faults.active or self._held else 0
        change = commands.receive(
            queue, self._clock.now(), lock_seconds, of_connection=of_connection, skip=skip
        )
        self._commit(queue, change)
        if lock_seconds is not None:
            self._due.watch(device_id, change.queue.commands)
        return change.command

    # --- faults

    def _loses_acknowledgment(self, queue: CommandQueue, token: str) -> bool:
        """Return whether a fault loses an acknowledgment: then the message is sent once more."""
        return any(
            each.lock is not None and each.lock.token == token and each.delivery_count == 0
            for each in queue.commands
        ) and bool(self._faults.match("duplicate-c2d", IdentityKey(queue.device_id)))

    def _reorders(self, queue: CommandQueue) -> int:
        """Return how many messages a fault leaves behind: 1, or 0.

        A message that is alone is held for the delay of the fault, or until the next one comes.
        """
        device_id = queue.device_id
        waiting = [each.sequence_number for each in queue.commands if each.lock is None]
        first = waiting[0] if waiting else 0
        held, is_free = self._held.get(device_id, (0, False))
        if held == first and is_free:
            del self._held[device_id]
        if not waiting or (held == first and is_free):
            return 0
        if held != first:
            fault = self._faults.match("reorder-c2d", IdentityKey(device_id))
            if fault is None:
                return 0
            self._clock.call_later(fault.delay, self._end_hold, device_id, first)
        self._held[device_id] = first, len(waiting) > 1
        return 1

    def _end_hold(self, device_id: str, number: int) -> None:
        held, is_free = self._held.get(device_id, (0, False))
        if held != number:
            return
        if all(each.sequence_number != number for each in self._queue(device_id).commands):
            del self._held[device_id]  # it has expired, or was purged
        elif not is_free:
            self._held[device_id] = number, True
            self._push_to(device_id)

    # ---

    def _settle(self, device_id: str) -> tuple[Command, ...]:
        """End the messages that have expired, and push those whose lock has lapsed."""
        queue = self._queue(device_id)
        self._commit(queue, commands.expire(queue, self._clock.now()))
        self._push_to(device_id)
        return self._queue(device_id).commands

    def _settle_feedback(self) -> tuple[Batch, ...]:
        before = self._feedback()
        after = feedback.expire(before, self._clock.now())
        self._commit_feedback(before, after)
        return after.batches

    def _discard_feedback(self, change: IdentityDeleted) -> None:
        if change.key.module_id is None:
            before = self._feedback()
            after = feedback.discard(before, change.key.device_id, self._clock.now())
            self._commit_feedback(before, after)

    def _queue(self, device_id: str) -> CommandQueue:
        return self._store.get(CommandQueue, (device_id,)) or CommandQueue(device_id)

    def _feedback(self) -> FeedbackQueue:
        return self._store.get(FeedbackQueue, FEEDBACK) or FeedbackQueue()

    def _commit_feedback(self, before: FeedbackQueue, after: FeedbackQueue) -> None:
        if after is not before:
            self._store.commit(put=(after,))
            self._feedback_due.watch("", after.batches)
            if locks.returned(before.batches, after.batches):
                self._feed.publish(FeedbackQueued())

    def _commit(self, before: CommandQueue, change: commands.Change) -> None:
        """Store what an operation made of a queue, with the feedback that its senders want."""
        put: list[Record] = [] if change.queue is before else [change.queue]
        records = [self._record(outcome) for outcome in change.outcomes if outcome.wanted]
        if records:
            put.append(feedback.add(self._feedback(), records, self._clock.now()))
        if put:
            self._store.commit(put=put)
        for outcome in change.outcomes:
            self._feed.publish(CommandEnded(outcome))
        if records:
            self._feed.publish(FeedbackQueued())

    def _record(self, outcome: Outcome) -> JsonObject:
        identity = self._store.get(Identity, IdentityKey(outcome.device_id))
        return feedback.record(outcome, identity.generation_id if identity else "")
