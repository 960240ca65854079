"""Waits of tests: what ends them, and what they say was there instead."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from emulator.hub.core import errors, limits
from emulator.hub.core.json import UNDEFINED, includes, loads
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.event import Event, Origin
from emulator.hub.messages.message import Message
from emulator.hub.uploads.upload import Report, Upload, UploadEnded
from emulator.hub.waits import WaitTimeout, body_includes
from tests.clock import ManualClock, settle
from tests.hub.fakes import ANY, DEVICE, MODULE, FakeLink, connect, make_hub, put

OTHER = IdentityKey("other")

# Begins a wait, and lets happen what it waits for.
Case = tuple[Callable[[IotHub], Coroutine[Any, Any, Any]], Callable[[IotHub], object]]


def any_event(event: Event) -> bool:
    return True


def send(hub: IotHub, key: IdentityKey | None = DEVICE, *bodies: bytes) -> None:
    messages = [Message(body) for body in bodies or (b"{}",)]
    hub.events.extend(Origin(key), messages)


def report_upload(hub: IotHub, name: str = "a", device_id: str = "d") -> None:
    upload = Upload(device_id, "id", "1", name, hub.clock.now())
    hub.feed.publish(UploadEnded(upload, Report("id", False), None))


CASES: dict[str, Case] = {
    "event": (
        lambda hub: hub.waits.event(any_event, ""),
        lambda hub: send(hub),
    ),
    "connected": (
        lambda hub: hub.waits.connected(DEVICE),
        lambda hub: connect(hub, FakeLink()),
    ),
    "listening": (
        lambda hub: hub.waits.listening(DEVICE, "reboot"),
        lambda hub: connect(hub, FakeLink()),
    ),
    "reported": (
        lambda hub: hub.waits.reported(DEVICE, {"a": {"b": 1}}),
        lambda hub: hub.twins.report(DEVICE, {"a": {"b": 1, "c": 2}}, None),
    ),
    "upload": (
        lambda hub: hub.waits.upload(DEVICE.device_id),
        lambda hub: report_upload(hub),
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_wait_ends_when_it_happens(hub: IotHub, name: str) -> None:
    put(hub, DEVICE)
    begin, happen = CASES[name]
    wait = asyncio.ensure_future(begin(hub))
    await settle()
    assert not wait.done()
    happen(hub)
    await asyncio.wait_for(wait, 1)


@pytest.mark.parametrize("name", CASES)
async def test_what_has_happened_already_counts(hub: IotHub, name: str) -> None:
    put(hub, DEVICE)
    begin, happen = CASES[name]
    happen(hub)
    await asyncio.wait_for(begin(hub), 1)


@pytest.mark.parametrize("name", CASES)
async def test_a_hub_that_stops_ends_waits_and_refuses_new_ones(hub: IotHub, name: str) -> None:
    put(hub, DEVICE)
    begin, _ = CASES[name]
    wait = asyncio.ensure_future(begin(hub))
    await settle()
    await hub.stop()
    for each in (wait, begin(hub)):
        with pytest.raises(errors.ServiceUnavailable):
            await asyncio.wait_for(each, 1)


@pytest.mark.parametrize("name", CASES)
async def test_a_wait_that_is_cancelled_leaves_nothing(hub: IotHub, name: str) -> None:
    put(hub, DEVICE)
    wait = asyncio.ensure_future(CASES[name][0](hub))
    await settle()
    wait.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await wait
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not hub.waits._open


async def test_the_clock_of_the_hub_does_not_end_a_wait(hub: IotHub, clock: ManualClock) -> None:
    wait = asyncio.ensure_future(hub.waits.event(any_event, ""))
    await settle()
    clock.advance(100_000)
    await settle()
    assert not wait.done()
    send(hub)
    assert (await asyncio.wait_for(wait, 1)).number == 0


async def test_an_event_is_the_first_that_matches_behind_a_number(hub: IotHub) -> None:
    for key in (DEVICE, OTHER, MODULE, None):
        send(hub, key, b'{"n": 1}', b'{"n": 2}')

    async def number(key: IdentityKey | None, start: int = 0, **part: int) -> int:
        event = await hub.waits.event(
            lambda event: body_includes(event, part), "", key=key, start=start, seconds=0
        )
        return event.number

    assert await number(None) == 0
    assert await number(DEVICE, n=2) == 1
    assert await number(OTHER) == 2
    assert await number(MODULE) == 4
    assert await number(DEVICE, start=2) == 4  # a module's events are of its device too
    assert await number(None, start=6) == 6
    with pytest.raises(WaitTimeout):
        await number(OTHER, start=4)


async def test_an_error_of_a_predicate_is_raised(hub: IotHub) -> None:
    send(hub)
    with pytest.raises(ZeroDivisionError):
        await hub.waits.event(lambda event: event.number / 0 > 1, "")


@pytest.mark.parametrize(
    "seconds", [-1, limits.WAIT_SECONDS + 1, float("inf"), float("nan"), None, "5"]
)
async def test_the_time_is_limited(hub: IotHub, seconds: Any) -> None:
    with pytest.raises(errors.ArgumentInvalid, match=r"Invalid timeout: .+ Use seconds from 0 to"):
        await hub.waits.connected(DEVICE, seconds=seconds)


# --- what was there instead


async def text_of(wait: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(WaitTimeout) as caught:
        await wait
    return str(caught.value)


async def test_an_upload_is_the_first_of_its_device_and_name_from_a_number_on(
    hub: IotHub,
) -> None:
    for device_id, name in (("other", "a"), ("d", "a"), ("d", "b"), ("d", "a")):
        report_upload(hub, name, device_id)
    wait = hub.waits.upload
    assert (await wait("d")).number == 1
    assert (await wait("d", "b")).number == 2
    assert (await wait("d", start=2)).upload.name == "b"
    assert (await wait("d", "a", start=2)).number == 3
    with pytest.raises(WaitTimeout):
        await wait("d", start=4, seconds=0)


async def test_the_oldest_uploads_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOADS_KEPT", 2)
    hub = make_hub()
    for name in "abc":
        report_upload(hub, name)
    assert (await hub.waits.upload("d")).upload.name == "b"


async def test_an_error_shows_what_was_there_instead(hub: IotHub) -> None:
    put(hub, DEVICE)
    connect(hub, FakeLink(accepts_methods=False))
    hub.twins.report(DEVICE, {"temperature": 20}, None)
    send(hub, DEVICE, b'{"temperature": 20}', b"text", b"\xff")
    wait = hub.waits.reported(DEVICE, {"temperature": 21}, seconds=0)
    assert await text_of(wait) == (
        "'d' did not report {\"temperature\":21} within 0 s.\n"
        "  connected: d\n"
        "  d: connected, subscribed to cloud-to-device messages\n"
        '  reported by d: {"temperature":20}\n'
        "  last events:\n"
        '    #0 of d: {"temperature": 20}\n'
        "    #1 of d: text\n"
        "    #2 of d: /w== (Base64)"
    )
    wait = hub.waits.listening(DEVICE, "reboot", seconds=0)
    assert (await text_of(wait)).startswith("'d' did not subscribe to the direct method 'reboot'")


async def test_an_error_of_a_hub_without_anything(hub: IotHub) -> None:
    assert await text_of(hub.waits.connected(MODULE, seconds=0)) == (
        "'d/m' did not connect within 0 s.\n"
        "  connected: no device\n"
        "  d/m: not registered\n"
        "  events: none"
    )
    assert await text_of(hub.waits.event(any_event, " with x", seconds=0.01)) == (
        "No event with x within 0.01 s.\n  connected: no device\n  events: none"
    )


async def test_an_error_is_short_however_much_is_there(hub: IotHub) -> None:
    for number in range(30):
        key = IdentityKey(f"device-{number}")
        put(hub, key)
        connect(hub, FakeLink(key))
    hub.twins.report(IdentityKey("device-0"), {f"p{n}": "x" * 500 for n in range(10)}, None)
    send(hub, DEVICE, *[b"y" * 5000] * 20)
    assert (
        len(await text_of(hub.waits.reported(IdentityKey("device-0"), {"a": 1}, seconds=0))) < 999
    )
    text = await text_of(hub.waits.event(lambda event: False, "", seconds=0))
    assert len(text) < 3000
    assert "#19" in text
    assert "#14" not in text


async def test_the_last_events_are_of_the_device(hub: IotHub) -> None:
    send(hub, DEVICE, b"mine")
    send(hub, OTHER, b"another's")
    text = await text_of(hub.waits.connected(DEVICE, seconds=0))
    assert "mine" in text
    assert "another's" not in text


async def test_a_disconnected_device_is_described(hub: IotHub) -> None:
    put(hub, DEVICE)
    link = connect(hub, FakeLink())
    hub.identities.put(DEVICE, {"deviceId": "d", "status": "disabled"}, ANY)
    assert link.closed
    assert "  d: not connected\n" in await text_of(hub.waits.connected(DEVICE, seconds=0))


@pytest.mark.parametrize(
    ("value", "part", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": {"b": [1, {"c": 2, "d": 3}]}}, {"a": {"b": [1, {"c": 2}]}}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, True),
        ({"a": 0}, {"a": None}, False),
        ({}, {"a": {"b": None}}, False),
        ({"a": "1"}, {"a": 1}, False),
        ([], {}, False),
        (None, {}, False),
        (UNDEFINED, {}, False),
        (loads("1.50"), 1.5, True),
    ],
)
def test_a_value_includes_another(value: object, part: object, expected: bool) -> None:
    assert includes(value, part) is expected
