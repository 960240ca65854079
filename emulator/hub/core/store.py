"""Where the hub's state is kept.

`Store` is all that the hub knows of it. A change is one `commit`: it happens whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from emulator.hub.configurations.records import Configuration, ConfigurationKey
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.import_export.records import Transfer, TransferKey
from emulator.hub.jobs.records import DeviceJob, Job, JobKey
from emulator.hub.messages.commands import CommandQueue
from emulator.hub.messages.feedback import FeedbackQueue
from emulator.hub.twins.twin import Twin

# What is stored: frozen, so a reader can hold on to one while a writer replaces it.
Record = Identity | Twin | CommandQueue | FeedbackQueue | Configuration | Job | DeviceJob | Transfer
# What names a record that can be deleted, with all that belongs to it.
Key = IdentityKey | ConfigurationKey | JobKey | TransferKey


class Store(Protocol):
    """Identities and their twins, the messages that wait for devices and services, configurations
    and jobs.
    """

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

    def configuration(self, key: ConfigurationKey) -> Configuration | None:
        """Read a configuration; None if there is none of that id."""

    def configurations(self) -> Sequence[Configuration]:
        """List the configurations, oldest first."""

    def job(self, key: JobKey) -> Job | None:
        """Read a scheduled job; None if there is none of that id."""

    def jobs(self) -> Sequence[Job]:
        """List the scheduled jobs, oldest first."""

    def device_jobs(self) -> Iterator[DeviceJob]:
        """Go through what became of each scheduled job on each device, the oldest job first."""

    def device_jobs_of(self, key: JobKey) -> Sequence[DeviceJob]:
        """List what became of one scheduled job on each of its devices."""

    def transfer(self, key: TransferKey) -> Transfer | None:
        """Read an import or export job; None if there is none of that id."""

    def transfers(self) -> Sequence[Transfer]:
        """List the import and export jobs, oldest first."""

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[Key] = ()) -> None:
        """Write records, and delete identities with their twins and messages, configurations, and
        jobs with what became of them on each device: all or nothing.
        """


class MemoryStore:
    """A store that is gone with the process."""

    def __init__(self) -> None:
        # By device id, then by module id: a device and what belongs to it are found in one step.
        self._identities: dict[str, dict[str | None, Identity]] = {}
        self._twins: dict[IdentityKey, Twin] = {}
        self._queues: dict[str, CommandQueue] = {}
        self._feedback = FeedbackQueue()
        self._configurations: dict[ConfigurationKey, Configuration] = {}
        self._jobs: dict[JobKey, Job] = {}
        self._device_jobs: dict[JobKey, dict[IdentityKey, DeviceJob]] = {}
        self._transfers: dict[TransferKey, Transfer] = {}

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

    def configuration(self, key: ConfigurationKey) -> Configuration | None:
        """See `Store.configuration`."""
        return self._configurations.get(key)

    def configurations(self) -> Sequence[Configuration]:
        """See `Store.configurations`."""
        return list(self._configurations.values())

    def job(self, key: JobKey) -> Job | None:
        """See `Store.job`."""
        return self._jobs.get(key)

    def jobs(self) -> Sequence[Job]:
        """See `Store.jobs`."""
        return list(self._jobs.values())

    def device_jobs(self) -> Iterator[DeviceJob]:
        """See `Store.device_jobs`."""
        return (record for records in self._device_jobs.values() for record in records.values())

    def device_jobs_of(self, key: JobKey) -> Sequence[DeviceJob]:
        """See `Store.device_jobs_of`."""
        return list(self._device_jobs.get(key, {}).values())

    def transfer(self, key: TransferKey) -> Transfer | None:
        """See `Store.transfer`."""
        return self._transfers.get(key)

    def transfers(self) -> Sequence[Transfer]:
        """See `Store.transfers`."""
        return list(self._transfers.values())

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[Key] = ()) -> None:
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
            case Configuration():
                self._configurations[record.key] = record
            case Job():
                self._jobs[record.key] = record
            case DeviceJob():
                self._device_jobs.setdefault(record.job, {})[record.target] = record
            case Transfer():
                self._transfers[record.key] = record

    def _delete(self, key: Key) -> None:
        match key:
            case IdentityKey():
                self._delete_identity(key)
            case ConfigurationKey():
                self._configurations.pop(key, None)
            case JobKey():
                self._jobs.pop(key, None)
                self._device_jobs.pop(key, None)
            case TransferKey():
                self._transfers.pop(key, None)

    def _delete_identity(self, key: IdentityKey) -> None:
        self._twins.pop(key, None)
        family = self._identities.get(key.device_id, {})
        family.pop(key.module_id, None)
        if not family:
            self._identities.pop(key.device_id, None)
            self._queues.pop(key.device_id, None)
