"""The changes of twins that the feed publishes."""

from __future__ import annotations

from datetime import datetime

from emulator.hub.core.json import JsonObject
from emulator.hub.feed import Change
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.twins.twin import Twin


class TwinChanged(Change, frozen=True):
    """A twin was written. A part that was not written is None.

    Args:
        twin: the new twin.
        time: the time of the write.
        tags: the patch of the tags; all tags after a replace.
        desired: the notification for a connected device: the patch with its nulls, or all desired
            properties after a replace; and `$version`.
        reported: the patch of the reported properties.
        replaced: whether the write replaced the twin.
    """

    twin: Twin
    time: datetime
    tags: JsonObject | None = None
    desired: JsonObject | None = None
    reported: JsonObject | None = None
    replaced: bool = False

    @property
    def key(self) -> IdentityKey:
        """The identity of the twin."""
        return self.twin.key
