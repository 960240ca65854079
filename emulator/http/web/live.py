"""What happens in a hub as it happens: server-sent events for the page.

One recorder keeps the last changes of a hub for all streams. A stream reads them, and the event
log, at its own pace. A reader that is too slow misses the oldest, and learns how many.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterable
from datetime import datetime

from aiohttp.web_response import StreamResponse

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request
from emulator.http.web.changes import document, event_document, key_of
from emulator.http.web.sessions import Session
from emulator.http.web.static import SAFE
from emulator.hub.core.errors import HubError, ThrottlingException
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.tail import Tail
from emulator.hub.core.times import iso
from emulator.hub.feed import Change
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.event import TELEMETRY, Event
from emulator.hub.methods.methods import MethodCalled
from emulator.hub.twins.twin import TwinChanged

# How many changes the recorder keeps.
_KEPT = 500
# How many streams there are at most.
_STREAMS = 32
# How often a stream looks for something new, and how often it sends its numbers.
_PAUSE_SECONDS = 0.2
_TICK_SECONDS = 1.0
# What a stream sends at a time, at most. Older messages are left out.
_CHANGES, _MESSAGES = 100, 50
# How many events of the log a stream looks through for the messages of a device.
_SEARCHED = 1_000
# What a stream begins with: the last messages.
_BEGINNING = 20
# A browser that takes no more bytes for so long is cut off.
_SLOW_SECONDS = 10.0


class Recorder:
    """The last changes of a hub, with their times; it counts the calls of direct methods."""

    def __init__(self, hub: IotHub) -> None:
        self.hub = hub
        self.changes: Tail[tuple[datetime, Change]] = Tail()
        self.calls = 0
        self.streams = 0
        """How many streams are open."""
        self.over = False
        """Whether another hub is in the place of this one."""
        hub.feed.subscribe(Change, self._record)

    def _record(self, change: Change) -> None:
        self.calls += isinstance(change, MethodCalled)
        time = getattr(change, "time", None) or self.hub.clock.now()
        self.changes.append((time, change))
        if len(self.changes) > _KEPT:
            self.changes.drop()


class Reader:
    """Reads the changes and the messages of a hub, or those of a device or module.

    Args:
        recorder: what it reads.
        key: the device or module; None is all.
    """

    def __init__(self, recorder: Recorder, key: IdentityKey | None) -> None:
        self._recorder = recorder
        self._hub = recorder.hub
        self._key = key
        changes = recorder.changes
        self._change = changes.begin if key else max(changes.begin, changes.end - _CHANGES)
        self._event = max(self._hub.events.end - _SEARCHED, 0)
        self._most = _BEGINNING
        self._twin_sent = False

    def read(self) -> list[JsonObject]:
        """Return what is new, the oldest first."""
        changes, lost_changes = self._read_changes()
        messages, lost_messages = self._read_messages()
        timed = [(time, document(change, time)) for time, change in changes]
        timed += [(event.enqueued, event_document(event)) for event in messages]
        items = [item for _, item in sorted(timed, key=operator.itemgetter(0))]
        if lost_changes or lost_messages:
            lost = {"type": "Dropped", "changes": lost_changes, "messages": lost_messages}
            items.insert(0, lost)
        if self._key is not None and self._shows_twin(change for _, change in changes):
            items += self._twin(self._key)
        return items

    def numbers(self) -> JsonObject:
        """Return the numbers of the hub: all messages and calls, and what is connected."""
        return {
            "type": "Numbers",
            "time": iso(self._hub.clock.now()),
            "messages": self._hub.events.end,
            "calls": self._recorder.calls,
            "connected": len(self._hub.links.links()),
        }

    def _read_changes(self) -> tuple[list[tuple[datetime, Change]], int]:
        kept, lost = self._recorder.changes, 0
        if self._change < kept.begin:
            lost, self._change = kept.begin - self._change, kept.begin
        end = min(self._change + _CHANGES, kept.end)
        found = [kept[number] for number in range(self._change, end)]
        self._change = end
        return [each for each in found if self._key is None or key_of(each[1]) == self._key], lost

    def _read_messages(self) -> tuple[list[Event], int]:
        log, end = self._hub.events, self._hub.events.end
        start = max(self._event, log.begin, end - _SEARCHED)
        found = [
            event
            for event in log.read(start)
            if event.origin.source == TELEMETRY and self._key in (None, event.origin.key)
        ]
        lost = start - self._event + max(len(found) - self._most, 0)
        shown = found[-self._most :]
        if self._most == _BEGINNING:  # what is older than the stream is not lost
            self._most, lost = _MESSAGES, 0
        self._event = end
        return shown, lost

    def _shows_twin(self, changes: Iterable[Change]) -> bool:
        first, self._twin_sent = not self._twin_sent, True
        return first or any(isinstance(each, TwinChanged) for each in changes)

    def _twin(self, key: IdentityKey) -> list[JsonObject]:
        try:
            return [{"type": "Twin", "twin": self._hub.twins.get(key)}]
        except HubError:  # it was deleted
            return []


async def stream(recorder: Recorder, request: Request, session: Session | None) -> StreamResponse:
    """Send what happens until the browser, the session or the hub ends.

    Each event is a JSON array of documents; the first is a number of past changes and messages.

    Raises:
        ArgumentInvalid: a parameter is unknown.
        ThrottlingException: there are too many streams.
    """
    check_parameters(request, "device", "module")
    if recorder.streams >= _STREAMS:
        raise ThrottlingException(
            f"{_STREAMS} pages watch this hub, and no more are allowed. Close one of them"
        )
    device_id = request.query.get("device")
    key = None if device_id is None else IdentityKey(device_id, request.query.get("module"))
    recorder.streams += 1
    try:
        return await _send(recorder, Reader(recorder, key), request, session)
    finally:
        recorder.streams -= 1


async def _send(
    recorder: Recorder, reader: Reader, request: Request, session: Session | None
) -> StreamResponse:
    response = StreamResponse(headers={**SAFE, "Content-Type": "text/event-stream"})
    await response.prepare(request)
    clock, next_numbers = recorder.hub.clock.machine, 0.0
    slow = clock.call_later(_SLOW_SECONDS, _cut, request)
    try:
        while (
            (transport := request.transport)
            and not recorder.over
            and (session is None or not session.over)
        ):
            # As long as the browser does not take what was sent, the hub sends no more.
            if not transport.get_write_buffer_size():
                slow.cancel()
                slow = clock.call_later(_SLOW_SECONDS, _cut, request)
                items = reader.read()
                if clock.monotonic() >= next_numbers:
                    next_numbers = clock.monotonic() + _TICK_SECONDS
                    items.append(reader.numbers())
                if items:
                    await response.write(b"data: %s\n\n" % dumps(items))
            await asyncio.sleep(_PAUSE_SECONDS)
    except ConnectionError:  # the browser closed the page
        pass
    finally:
        slow.cancel()
    return response


def _cut(request: Request) -> None:
    if request.transport is not None:
        request.transport.abort()
