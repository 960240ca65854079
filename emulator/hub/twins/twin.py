"""The twin of a device or module: tags, desired and reported properties, with their metadata.

A twin is a value. A write makes a new one, which shares with the old one what the write left alone;
so nothing inside a twin, or in what its views return, may ever be changed in place.

The rules are those of IoT Hub docs: device twins, and of what was seen on a real hub.
"""

from __future__ import annotations

import base64
from datetime import datetime

from msgspec import Struct

from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import NEVER, iso
from emulator.hub.identities.identity import IdentityKey


class Section(Struct, frozen=True):
    """The desired or the reported properties.

    Args:
        values: the user's members only.
        metadata: mirrors the tree of `values`. A node holds `$lastUpdated`, `$lastUpdatedVersion`
            (not before the first write) and then a node for each member; an array has one node.
        version: counts the writes, from 1.
    """

    values: JsonObject
    metadata: JsonObject
    version: int

    def service_view(self) -> JsonObject:
        """Give the members, then `$metadata`, then `$version` (seen on a real hub)."""
        return {**self.values, "$metadata": self.metadata, "$version": self.version}

    def device_view(self) -> JsonObject:
        """Give the members, then `$version`: devices see no metadata (IoT Hub docs)."""
        return {**self.values, "$version": self.version}


class Twin(Struct, frozen=True):
    """The twin of a device or of a module.

    Args:
        key: whose twin it is.
        tags: seen by services only.
        desired: written by services, read by the device.
        reported: written by the device, read by services.
        revision: counts the writes of services, from 1.
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
        """The sum of both sections' versions (seen on a real hub)."""
        return self.desired.version + self.reported.version

    def device_view(self) -> JsonObject:
        """Give `{"desired", "reported"}`, the answer to a device's GET (IoT Hub docs: MQTT)."""
        return {"desired": self.desired.device_view(), "reported": self.reported.device_view()}


def create(key: IdentityKey, now: datetime) -> Twin:
    """Make the twin of a new identity; that of a module has no date yet (seen on a real hub)."""
    metadata: JsonObject = {"$lastUpdated": iso(now if key.module_id is None else NEVER)}
    section = Section({}, metadata, 1)
    return Twin(key, tags={}, desired=section, reported=section, revision=1)
