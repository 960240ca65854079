"""The twin of a device or module: tags, desired and reported properties, with their metadata.

A twin is a value. A write returns a new twin, which shares the unchanged parts with the old one. So
never change a twin, or the result of one of its views, in place.

The rules are from IoT Hub docs: device twins, and from a real hub.
"""

from __future__ import annotations

import base64
from datetime import datetime

from msgspec import Struct

from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import NEVER, iso
from emulator.hub.feed import Change
from emulator.hub.identities.identity import IdentityKey


class Section(Struct, frozen=True):
    """The desired or the reported properties.

    Args:
        values: the members of the user.
        metadata: the same tree as `values`. A node has `$lastUpdated`, in desired properties
            `$lastUpdatedVersion` (since the first write), and then a node for each member; an array
            has one node.
        version: the number of writes, from 1.
    """

    values: JsonObject
    metadata: JsonObject
    version: int

    def service_view(self) -> JsonObject:
        """Return the members, then `$metadata`, then `$version` (seen on a real hub)."""
        return {**self.values, "$metadata": self.metadata, "$version": self.version}

    def device_view(self) -> JsonObject:
        """Return the members, then `$version`: devices see no metadata (IoT Hub docs)."""
        return {**self.values, "$version": self.version}


class Twin(Struct, frozen=True):
    """The twin of a device or of a module.

    Args:
        key: the identity of the twin.
        tags: only services see them.
        desired: services write them, the device reads them.
        reported: the device writes them, services read them.
        revision: 1, and the number of writes of services.
    """

    key: IdentityKey
    tags: JsonObject
    desired: Section
    reported: Section
    revision: int

    @property
    def etag(self) -> str:
        """The revision as eight bytes in Base64: `AAAAAAAAAAE=` (seen on a real hub)."""
        return base64.b64encode(self.revision.to_bytes(8, "big")).decode()

    @property
    def version(self) -> int:
        """2, and the number of all writes: services can write tags alone (seen on a real hub)."""
        return self.revision + self.reported.version

    def device_view(self) -> JsonObject:
        """Return `{"desired", "reported"}`, the answer to a device's GET (IoT Hub docs: MQTT)."""
        return {"desired": self.desired.device_view(), "reported": self.reported.device_view()}


class TwinChanged(Change, frozen=True):
    """A twin was written. A part that was not written is None.

    Args:
        twin: the new twin.
        time: the time of the write.
        before: the old twin.
        tags: the patch of the tags; all tags after a replace.
        desired: the notification for a connected device: the patch with its nulls, or after a
            replace all desired properties, with null for what is gone; and `$version`.
        reported: the patch of the reported properties.
        replaced: whether the write replaced the twin.
    """

    twin: Twin
    time: datetime
    before: Twin
    tags: JsonObject | None = None
    desired: JsonObject | None = None
    reported: JsonObject | None = None
    replaced: bool = False

    @property
    def key(self) -> IdentityKey:
        """The identity of the twin."""
        return self.twin.key


class TwinDeleted(Change, frozen=True):
    """A twin was deleted, with its identity.

    Args:
        twin: the twin as it was.
        time: the time of the deletion.
    """

    twin: Twin
    time: datetime

    @property
    def key(self) -> IdentityKey:
        """The identity of the twin."""
        return self.twin.key


def create(key: IdentityKey, now: datetime) -> Twin:
    """Return the twin of a new identity; the twin of a module has no date (seen on a real hub)."""
    metadata: JsonObject = {"$lastUpdated": iso(now if key.module_id is None else NEVER)}
    section = Section({}, metadata, 1)
    return Twin(key, tags={}, desired=section, reported=section, revision=1)
