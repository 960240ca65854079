"""What the feed publishes about cloud-to-device messages."""

from __future__ import annotations

from emulator.hub.feed import Change
from emulator.hub.messages.commands import Command, Outcome


class CommandSent(Change, frozen=True):
    """A service has sent a message to a device; it is in the device's queue."""

    device_id: str
    command: Command


class CommandEnded(Change, frozen=True):
    """A message has left its device's queue."""

    outcome: Outcome
