"""Waits of tests: for an event, a connection, a subscription to a method, reported properties, an
upload.

A wait that ends without success says what was there instead. Its seconds are real ones: they bound
the run of a test, and a test can move the clock of the hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, ServiceUnavailable
from emulator.hub.core.json import JsonObject, dumps, includes
from emulator.hub.core.store import Store
from emulator.hub.feed import Change, Feed
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Connected, Subscribed
from emulator.hub.links.links import Links
from emulator.hub.messages.event import Event
from emulator.hub.messages.event_log import EventLog
from emulator.hub.twins.twin import Twin, TwinChanged
from emulator.hub.uploads.ended import EndedUpload, EndedUploads
from emulator.hub.uploads.upload import UploadEnded

_T = TypeVar("_T")

# What an error shows: so many devices and events, of the latest events so many are looked at, and
# so many characters of a value.
_DEVICES, _EVENTS, _LATEST, _SHOWN = 20, 5, 1_000, 200
# A wait for events begins anew after so many seconds on the clock of the hub.
_EVENTS_SECONDS = 3600.0
# Stands for every method, where a wait names none: a device can subscribe to single ones.
_ANY_METHOD = "any"


class WaitTimeout(AssertionError):
    """What a test waited for did not happen in time: the test fails.

    Args:
        text: what was awaited, and what was there instead, in several lines.
        instead: what was there, as JSON: see `Waits.state`.
    """

    def __init__(self, text: str, instead: JsonObject) -> None:
        super().__init__(text)
        self.instead = instead


class Waits:
    """The waits of a hub."""

    def __init__(
        self, store: Store, links: Links, events: EventLog, uploads: EndedUploads, feed: Feed
    ) -> None:
        self._store = store
        self._links = links
        self._events = events
        self._uploads = uploads
        self._feed = feed
        self._open: set[asyncio.Future[Any]] = set()
        self._stopped = False

    async def event(
        self,
        matches: Callable[[Event], bool],
        wanted: str,
        *,
        key: IdentityKey | None = None,
        start: int = 0,
        seconds: float = limits.WAIT_SECONDS_DEFAULT,
    ) -> Event:
        """Wait for an event, and return it; an event that is in the log already counts.

        Args:
            matches: whether an event is the one.
            wanted: describes such an event, for the error.
            key: the device, with its modules, or the module; None is all.
            start: the number of the first event that counts.
            seconds: the longest time.

        Raises:
            WaitTimeout, ArgumentInvalid
            ServiceUnavailable: the hub stops.
        """

        async def find() -> Event:
            number = start
            while True:
                for event in await self._events.wait(
                    number, key and key.device_id, seconds=_EVENTS_SECONDS
                ):
                    if _is_from(event, key) and matches(event):
                        return event
                    number = event.number + 1

        sender = f" of {str(key)!r}" if key else ""
        return await self._wait(find(), f"No event{sender}{wanted}", key, seconds)

    async def connected(
        self, key: IdentityKey, *, seconds: float = limits.WAIT_SECONDS_DEFAULT
    ) -> None:
        """Wait until a device or module is connected.

        Raises:
            WaitTimeout, ArgumentInvalid, ServiceUnavailable
        """
        found = self._until(lambda: self._links.link(key) is not None, Connected)
        await self._wait(found, f"{str(key)!r} did not connect", key, seconds)

    async def listening(
        self, key: IdentityKey, method: str, *, seconds: float = limits.WAIT_SECONDS_DEFAULT
    ) -> None:
        """Wait until a device or module can answer a direct method.

        Raises:
            WaitTimeout, ArgumentInvalid, ServiceUnavailable
        """
        found = self._until(lambda: self._links.listener(key, method) is not None, Subscribed)
        failed = f"{str(key)!r} did not subscribe to the direct method {method!r}"
        await self._wait(found, failed, key, seconds)

    async def reported(
        self,
        key: IdentityKey,
        properties: JsonObject,
        *,
        seconds: float = limits.WAIT_SECONDS_DEFAULT,
    ) -> None:
        """Wait until the reported properties include others; null stands for a missing one.

        Raises:
            WaitTimeout, ArgumentInvalid, ServiceUnavailable
        """
        found = self._until(lambda: includes(self._reported(key), properties), TwinChanged)
        failed = f"{str(key)!r} did not report {_short(properties)}"
        await self._wait(found, failed, key, seconds)

    async def upload(
        self,
        device_id: str,
        name: str | None = None,
        *,
        start: int = 0,
        seconds: float = limits.WAIT_SECONDS_DEFAULT,
    ) -> EndedUpload:
        """Wait until a device has reported an upload, its success or its failure, and return it.

        Args:
            device_id: the device.
            name: the name of the file; None is any.
            start: the number of the first report that counts.
            seconds: the longest time.

        Raises:
            WaitTimeout, ArgumentInvalid, ServiceUnavailable
        """

        async def find() -> EndedUpload:
            await self._until(lambda: get() is not None, UploadEnded)
            return cast("EndedUpload", get())

        def get() -> EndedUpload | None:
            return self._uploads.find(device_id, name, start)

        wanted = "an upload" if name is None else f"the upload of {name!r}"
        failed = f"{device_id!r} did not report {wanted}"
        return await self._wait(find(), failed, IdentityKey(device_id), seconds)

    def state(self, key: IdentityKey | None = None) -> JsonObject:
        """Return what is there, as JSON.

        Returns:
            `{"connected": [id, …], "device": {…}, "events": [event, …]}`: the connected devices and
            modules, the state of a device (see `device`), and the last events, of the device if it
            is given; see `Event.document`.
        """
        connected = [str(link.key) for link in self._links.links()[:_DEVICES]]
        state: JsonObject = {"connected": connected}
        if key is not None:
            state["device"] = self.device(key)
        events = reversed(self._events.read(self._events.end - _LATEST))
        found = [each.document() for each in events if _is_from(each, key)][:_EVENTS]
        return {**state, "events": found[::-1]}

    def device(self, key: IdentityKey) -> JsonObject:
        """Return the state of a device or module, as JSON.

        Returns:
            `{"deviceId", "moduleId", "registered", "connected", "listensToMethods",
            "listensToMessages", "reported"}`: `reported` is null if it is not registered.
        """
        link = self._links.link(key)
        return {
            "deviceId": key.device_id,
            "moduleId": key.module_id,
            "registered": self._store.get(Identity, key) is not None,
            "connected": link is not None,
            "listensToMethods": link is not None and link.accepts_method(_ANY_METHOD),
            "listensToMessages": link is not None and link.accepts_commands,
            "reported": self._reported(key),
        }

    def stop(self) -> None:
        """End all waits, and refuse new ones: the hub stops."""
        self._stopped = True
        for each in self._open:
            each.cancel()

    def _reported(self, key: IdentityKey) -> JsonObject | None:
        twin = self._store.get(Twin, key)
        return None if twin is None else twin.reported.values

    async def _until(self, happened: Callable[[], bool], kind: type[Change]) -> None:
        """Return when a condition holds, which changes of a kind can bring about."""
        changed = asyncio.Event()
        end = self._feed.subscribe(kind, lambda _: changed.set())
        try:
            while not happened():
                changed.clear()
                await changed.wait()
        finally:
            end()

    async def _wait(
        self, work: Coroutine[Any, Any, _T], failed: str, key: IdentityKey | None, seconds: float
    ) -> _T:
        """Return the result of work, or fail when its time is over or the hub stops."""
        waiting = asyncio.ensure_future(work)
        self._open.add(waiting)
        try:
            is_number = isinstance(seconds, int | float)  # a test can pass None
            if not (is_number and 0 <= seconds <= limits.WAIT_SECONDS):  # also false for NaN
                raise ArgumentInvalid(
                    f"Invalid timeout: {seconds}. Use seconds from 0 to {limits.WAIT_SECONDS:.0f}"
                )
            if not self._stopped:
                done, _ = await asyncio.wait([waiting], timeout=seconds)
                if not done:
                    instead = self.state(key)
                    lines = (f"{failed} within {seconds:g} s.", *describe(instead))
                    raise WaitTimeout("\n  ".join(lines), instead)
            if self._stopped:
                raise ServiceUnavailable("The hub stopped during the wait.")
            return waiting.result()
        finally:
            self._open.discard(waiting)
            waiting.cancel()


def describe(state: JsonObject) -> list[str]:
    """Return lines of text that describe a state; see `Waits.state`."""
    lines = [f"connected: {', '.join(state['connected']) or 'no device'}"]
    if device := state.get("device"):
        lines += describe_device(device)
    lines.append("last events:" if state["events"] else "events: none")
    return lines + [f"  {describe_event(event)}" for event in state["events"]]


def describe_device(device: JsonObject) -> list[str]:
    """Return lines of text that describe the state of a device; see `Waits.device`."""
    key = IdentityKey(device["deviceId"], device["moduleId"])
    if not device["registered"]:
        return [f"{key}: not registered"]
    kinds = {"listensToMethods": "direct methods", "listensToMessages": "cloud-to-device messages"}
    named = [name for member, name in kinds.items() if device[member]]
    subscriptions = f"subscribed to {' and '.join(named) or 'nothing'}"
    state = f"connected, {subscriptions}" if device["connected"] else "not connected"
    return [f"{key}: {state}", f"reported by {key}: {_short(device['reported'])}"]


def describe_event(event: JsonObject) -> str:
    """Return a line of text that describes an event; see `Event.document`."""
    body = event["body"] if "body" in event else f"{event['bodyBase64']} (Base64)"
    text = body if isinstance(body, str) else _short(body)
    key = IdentityKey(event["deviceId"], event["moduleId"]) if event["deviceId"] else "the hub"
    return f"#{event['sequenceNumber']} of {key}: {text[:_SHOWN]}"


def body_includes(event: Event, part: JsonObject) -> bool:
    """Return whether the body of an event is JSON that includes an object."""
    return includes(event.json(), part)


def where_text(part: JsonObject) -> str:
    """Describe events whose body includes an object, for `Waits.event`."""
    return f" with {_short(part)}" if part else ""


def _is_from(event: Event, key: IdentityKey | None) -> bool:
    """Return whether an event is of a device and its modules, or of one module."""
    if key is None or event.origin.key is None:
        return key is None
    return key in (event.origin.key, IdentityKey(event.origin.key.device_id))


def _short(value: object) -> str:
    text = dumps(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
