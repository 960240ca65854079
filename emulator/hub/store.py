"""Where the hub's state is kept.

`Store` is all that the hub knows of it. A change is one `commit`: it happens whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from emulator.hub.cloud_to_device import CommandQueue
from emulator.hub.feedback import FeedbackQueue
from emulator.hub.identities import Identity, IdentityKey
from emulator.hub.twins import Twin

# What is stored: frozen, so a reader can hold on to one while a writer replaces it.
Record = Identity | Twin | CommandQueue | FeedbackQueue


class Store(Protocol):
    """Identities, their twins, and the messages that wait for devices and services."""

    def identity(self, key: IdentityKey) -> Identity | None:
        """Read an identity; None if it is not registered."""

    def twin(self, key: IdentityKey) -> Twin | None:
        """Read a twin; None if its identity is not registered."""

    def devices(self) -> Iterator[Identity]:
        """Go through the device identities, oldest first."""

    def keys_of(self, device_id: str) -> Sequence[IdentityKey]:
        """List a device's own key and those of its modules; empty if it is not registered."""

    def command_queue(self, device_id: str) -> CommandQueue:
        """Read the cloud-to-device messages of a device; empty if it has none."""

    def devices_with_commands(self) -> Sequence[str]:
        """List the ids of the devices for which messages wait."""

    def feedback(self) -> FeedbackQueue:
        """Read the feedback that waits for services."""

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[IdentityKey] = ()) -> None:
        """Write records, and delete identities with their twins and messages: all or nothing."""


class MemoryStore:
    """A store that is gone with the process."""

    def __init__(self) -> None:
        # By device id, then by module id: a device and what belongs to it are found in one step.
        self._identities: dict[str, dict[str | None, Identity]] = {}
        self._twins: dict[IdentityKey, Twin] = {}
        self._queues: dict[str, CommandQueue] = {}
        self._feedback = FeedbackQueue()

    def identity(self, key: IdentityKey) -> Identity | None:
        """See `Store.identity`."""
        return self._identities.get(key.device_id, {}).get(key.module_id)

    def twin(self, key: IdentityKey) -> Twin | None:
        """See `Store.twin`."""
        return self._twins.get(key)

    def devices(self) -> Iterator[Identity]:
        """See `Store.devices`."""
        for family in self._identities.values():
            if None in family:
                yield family[None]

    def keys_of(self, device_id: str) -> Sequence[IdentityKey]:
        """See `Store.keys_of`."""
        return [IdentityKey(device_id, module) for module in self._identities.get(device_id, ())]

    def command_queue(self, device_id: str) -> CommandQueue:
        """See `Store.command_queue`."""
        return self._queues.get(device_id) or CommandQueue(device_id)

    def devices_with_commands(self) -> Sequence[str]:
        """See `Store.devices_with_commands`."""
        return [device_id for device_id, queue in self._queues.items() if queue.commands]

    def feedback(self) -> FeedbackQueue:
        """See `Store.feedback`."""
        return self._feedback

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[IdentityKey] = ()) -> None:
        """See `Store.commit`; nothing here can fail halfway."""
        for record in put:
            self._put(record)
        for key in delete:
            self._delete(key)

    def _put(self, record: Record) -> None:
        match record:
            case Identity(key=IdentityKey(device_id, module_id)):
                self._identities.setdefault(device_id, {})[module_id] = record
            case Twin():
                self._twins[record.key] = record
            case CommandQueue():
                self._queues[record.device_id] = record
            case FeedbackQueue():
                self._feedback = record

    def _delete(self, key: IdentityKey) -> None:
        self._twins.pop(key, None)
        family = self._identities.get(key.device_id, {})
        family.pop(key.module_id, None)
        if not family:
            self._identities.pop(key.device_id, None)
            self._queues.pop(key.device_id, None)
