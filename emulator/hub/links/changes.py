"""What the feed publishes about connections."""

from __future__ import annotations

from datetime import datetime

from emulator.hub.core.errors import HubError
from emulator.hub.feed import Change
from emulator.hub.links.link import Admission, DeviceLink


class Connected(Change, frozen=True):
    """A device or module has connected."""

    admission: Admission
    time: datetime


class Subscribed(Change, frozen=True):
    """A connected device has subscribed to direct methods, or to messages."""

    link: DeviceLink


class Disconnected(Change, frozen=True):
    """A connection has ended, from either side.

    Args:
        reason: why; `DeviceNotOnline` where the device ended it.
    """

    link: DeviceLink
    reason: HubError
    time: datetime
