"""What `--verbose` logs of a hub: its changes, as the feed publishes them, and its telemetry."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from emulator.hub.core.errors import HubError, ServiceUnavailable
from emulator.hub.core.printable import printable
from emulator.hub.feed import Change, ServiceChange
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityChanged, IdentityCreated, IdentityDeleted
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent
from emulator.hub.messages.event import TELEMETRY
from emulator.hub.methods.methods import MethodCalled, MethodEnded
from emulator.hub.methods.request import MethodResult
from emulator.hub.twins.twin import TwinChanged
from emulator.hub.uploads.upload import UploadEnded, UploadStarted

log = logging.getLogger(__name__)

# How long one wait for telemetry lasts; then another one begins.
_WAIT_SECONDS = 3600.0
_PAUSE_SECONDS = 0.1


async def watch(hub: IotHub) -> None:
    """Log the changes and the telemetry of a hub, without bodies, values and keys, until it stops.

    Connections and jobs are logged where they change.
    """
    hub.feed.subscribe(Change, _log_change)
    start = hub.events.end
    while True:
        try:
            events = await hub.events.wait(start, seconds=_WAIT_SECONDS)
        except ServiceUnavailable:
            return
        senders = (event.origin.key for event in events if event.origin.source == TELEMETRY)
        for key, count in Counter(senders).items():
            log.debug("%s sent messages: %d", printable(key), count)
        start = events[-1].number + 1 if events else start
        await asyncio.sleep(_PAUSE_SECONDS)  # a flood of messages makes few lines


def _log_change(change: Change) -> None:
    if line := describe(change):
        log.debug("%s", printable(line))


def describe(change: Change) -> str:
    """Describe a change in one line; empty if another module logs it."""
    match change:
        case IdentityCreated() | IdentityChanged() | IdentityDeleted():
            return f"{change.key} was {type(change).__name__.removeprefix('Identity').lower()}"
        case TwinChanged():
            parts = {"tags": change.tags, "desired": change.desired, "reported": change.reported}
            written = ", ".join(name for name, patch in parts.items() if patch is not None)
            return f"Twin of {change.key}: {written} {'replaced' if change.replaced else 'changed'}"
        case MethodCalled():
            return f"Method {change.request.name!r} was sent to {change.key}"
        case MethodEnded(outcome=None):
            return f"Method {change.name!r} on {change.key}: the caller left"
        case MethodEnded(outcome=HubError() as error):
            return f"Method {change.name!r} on {change.key}: {error.name}"
        case MethodEnded(outcome=MethodResult(status=status)):
            return f"Method {change.name!r} on {change.key}: status {status}"
        case CommandSent():
            return f"A message to {change.device_id} was queued"
        case CommandEnded():
            return f"A message to {change.outcome.device_id} ended: {change.outcome.status}"
        case UploadStarted():
            return f"{change.upload.device_id} began to upload {change.upload.name}"
        case UploadEnded():
            done = "uploaded" if change.report.is_success else "did not upload"
            return f"{change.upload.device_id} {done} {change.upload.name}"
        case ServiceChange():
            return f"{change.subject!r}: {change.what}"
        case _:
            return ""
