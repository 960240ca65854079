"""What the feed publishes about twins."""

from __future__ import annotations

from datetime import datetime

from emulator.hub.core.json import JsonObject
from emulator.hub.feed import Change
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.twins.twin import Twin


class TwinChanged(Change, frozen=True):
    """A twin was written. A part that was not written is None.

    Args:
        twin: the twin as it is now.
        tags: the patch of the tags, or all of them after a replace.
        desired: what a connected device receives: the patch with its nulls, or after a replace all
            desired properties; and `$version`.
        reported: the patch of the reported properties.
        replaced: whether the write replaced the twin.
        time: when.
    """

    twin: Twin
    time: datetime
    tags: JsonObject | None = None
    desired: JsonObject | None = None
    reported: JsonObject | None = None
    replaced: bool = False

    @property
    def key(self) -> IdentityKey:
        """The identity whose twin it is."""
        return self.twin.key
