"""The changes of connections that the feed publishes."""

from __future__ import annotations

from datetime import datetime

from emulator.hub.core.errors import HubError
from emulator.hub.feed import Change
from emulator.hub.links.link import Admission, DeviceLink


class Connected(Change, frozen=True):
    """A device or module connected."""

    admission: Admission
    time: datetime


class Subscribed(Change, frozen=True):
    """A connected device subscribed to direct methods or to cloud-to-device messages."""

    link: DeviceLink


class Disconnected(Change, frozen=True):
    """A connection ended; the device or the hub closed it.

    Args:
        reason: the reason; `DeviceNotOnline` if the device closed it.
    """

    link: DeviceLink
    reason: HubError
    time: datetime
