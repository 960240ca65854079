"""Counts what happens in a hub, for `/_emulator/metrics`, since the start of the process.

It counts on the feed, where each change is published anyway. Messages of devices are not counted
one by one: the sequence numbers of the event log show how many there were.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from emulator.hub.access.refusals import Refused
from emulator.hub.core.errors import HubError
from emulator.hub.feed import Change
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityChanged, IdentityCreated, IdentityDeleted
from emulator.hub.links.link import Connected, Disconnected
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent
from emulator.hub.messages.commands import Status
from emulator.hub.methods.methods import MethodCalled, MethodEnded
from emulator.hub.twins.twin import TwinChanged

# The outcomes of a direct method beside the errors of the hub.
ANSWERED, CALLER_LEFT = "Answered", "CallerLeft"
# A refusal without an error of the hub.
NO_ERROR = "Other"

_PARTS = ("tags", "desired", "reported")


class Counts:
    """The counts of the hubs of this process, one after another.

    A reset or a restore begins a new hub, and the counts go on.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.disconnections: Counter[str] = Counter()
        """By the reason: the name of an error."""
        self.identities = Counter({"created": 0, "updated": 0, "deleted": 0})
        self.twins = Counter(dict.fromkeys(_PARTS, 0))
        """The writes, by the part of the twin."""
        self.methods_called = 0
        self.methods_ended = Counter({ANSWERED: 0})
        """By the outcome: one of those above, or the name of an error."""
        self.commands_sent = 0
        self.commands_ended = Counter({status.value: 0 for status in Status})
        """By the outcome, in the words of feedback."""
        self.refusals: Counter[str] = Counter()
        """By the name of the error."""
        self._past_events: defaultdict[str, int] = defaultdict(int)
        self._past_notifications = 0
        self._hub: IotHub | None = None

    def follow(self, hub: IotHub) -> None:
        """Count what happens in a hub that begins, in the place of the last one."""
        events, notifications = self.events, self.notifications
        for partition in hub.events.partitions:  # of an earlier run, or of its first devices
            events[partition.id] -= partition.end
        self._past_events = events
        self._past_notifications = notifications - hub.notifications.count
        self._hub = hub
        handlers: tuple[tuple[type[Change], Callable[[Any], object]], ...] = (
            (IdentityCreated, lambda _: self.identities.update(("created",))),
            (IdentityChanged, lambda _: self.identities.update(("updated",))),
            (IdentityDeleted, lambda _: self.identities.update(("deleted",))),
            (Connected, self._connected),
            (Disconnected, lambda change: self.disconnections.update((change.reason.name,))),
            (TwinChanged, self._twin_changed),
            (MethodCalled, self._method_called),
            (MethodEnded, self._method_ended),
            (CommandSent, self._command_sent),
            (CommandEnded, lambda change: self.commands_ended.update((change.outcome.status,))),
            (Refused, lambda change: self.refusals.update((change.error or NO_ERROR,))),
        )
        for kind, handler in handlers:
            hub.feed.subscribe(kind, handler)

    @property
    def events(self) -> defaultdict[str, int]:
        """How many events were put into the log, by the partition."""
        events = self._past_events.copy()
        for partition in self._hub.events.partitions if self._hub else ():
            events[partition.id] += partition.end
        return events

    @property
    def notifications(self) -> int:
        """How many of these events are of the hub itself, not of a device."""
        return self._past_notifications + (self._hub.notifications.count if self._hub else 0)

    def _connected(self, _: Connected) -> None:
        self.connections += 1

    def _twin_changed(self, change: TwinChanged) -> None:
        self.twins.update(part for part in _PARTS if getattr(change, part) is not None)

    def _method_called(self, _: MethodCalled) -> None:
        self.methods_called += 1

    def _method_ended(self, change: MethodEnded) -> None:
        match change.outcome:
            case None:
                outcome = CALLER_LEFT
            case HubError():
                outcome = change.outcome.name
            case _:
                outcome = ANSWERED
        self.methods_ended[outcome] += 1

    def _command_sent(self, _: CommandSent) -> None:
        self.commands_sent += 1
