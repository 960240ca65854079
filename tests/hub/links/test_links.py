import asyncio
import math
from datetime import timedelta

import pytest

from emulator.hub.core.errors import DeviceDisabled, HubError
from emulator.hub.core.times import NEVER
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Connected, Disconnected
from emulator.hub.links.links import Presence
from tests.clock import START, ManualClock, settle
from tests.hub.fakes import ANY, DEVICE, MODULE, FakeLink, connect, put, record_changes

UNKNOWN = IdentityKey("unknown")


@pytest.fixture
def hub(hub: IotHub) -> IotHub:
    put(hub, DEVICE)
    put(hub, MODULE)
    return hub


def reason(link: FakeLink) -> str:
    assert isinstance(link.closed, HubError)
    return link.closed.name


def test_a_device_and_its_module_are_connected_apart(hub: IotHub) -> None:
    device, module = connect(hub, FakeLink()), connect(hub, FakeLink(MODULE))
    assert (hub.links.link(DEVICE), hub.links.link(MODULE)) == (device, module)
    assert hub.links.links() == [device, module]
    hub.links.disconnect(device)
    assert (hub.links.link(DEVICE), hub.links.links()) == (None, [module])


def test_the_older_connection_of_an_identity_ends_before_the_newer_begins(hub: IotHub) -> None:
    old, new = FakeLink(), FakeLink()
    connect(hub, old, lifetime=60)
    changes = record_changes(hub.feed)
    connect(hub, new)
    ended, began = changes[:2]
    name = "ConnectionForcefullyClosedOnNewConnection"
    assert (type(ended), ended.link, ended.reason.name) == (Disconnected, old, name)
    assert type(began) is Connected
    assert reason(old) == name
    hub.links.disconnect(old)  # its head notices the end later
    assert hub.links.link(DEVICE) is new
    assert new.closed is None


def test_a_connection_that_the_hub_or_the_device_has_ended_ends_once(hub: IotHub) -> None:
    ends = record_changes(hub.feed, Disconnected)
    links = [connect(hub, FakeLink(key)) for key in (DEVICE, MODULE)]
    hub.links.drop(DEVICE, DeviceDisabled())
    for link in links * 2:
        hub.links.drop(UNKNOWN, DeviceDisabled())
        hub.links.disconnect(link)
    assert [(end.link, end.reason.name) for end in ends] == [
        (links[0], "DeviceDisabled"),
        (links[1], "DeviceNotOnline"),
    ]
    assert (reason(links[0]), links[1].closed) == ("DeviceDisabled", None)


@pytest.mark.parametrize("lifetime", [60, math.inf])
def test_a_connection_is_closed_when_its_credentials_expire(
    hub: IotHub, clock: ManualClock, lifetime: float
) -> None:
    link = connect(hub, FakeLink(), lifetime=lifetime)
    clock.advance(59.9)
    assert link.closed is None
    clock.advance(0.1)
    assert (link.closed is None) == (hub.links.link(DEVICE) is link) == (lifetime == math.inf)
    if link.closed:
        assert reason(link) == "IotHubUnauthorized"


def test_the_expiry_of_an_older_connection_does_not_close_the_newer(
    hub: IotHub, clock: ManualClock
) -> None:
    connect(hub, FakeLink(), lifetime=60)
    second = connect(hub, FakeLink(), lifetime=60)
    hub.links.disconnect(second)
    third = connect(hub, FakeLink())
    clock.advance(3600)
    assert (hub.links.link(DEVICE), second.closed, third.closed) == (third, None, None)


async def test_a_hub_that_stops_closes_every_connection(hub: IotHub) -> None:
    links = [connect(hub, FakeLink(key)) for key in (DEVICE, MODULE)]
    await hub.stop()
    assert [reason(link) for link in links] == ["ServiceUnavailable"] * 2
    assert hub.links.links() == []


# --- presence


def test_the_presence_of_an_identity_is_dated(hub: IotHub, clock: ManualClock) -> None:
    link, times = FakeLink(), [START + timedelta(seconds=seconds) for seconds in range(4)]
    assert hub.links.presence(DEVICE) == Presence(DEVICE, False, NEVER, NEVER)
    connect(hub, link)
    assert hub.links.presence(DEVICE) == Presence(DEVICE, True, times[0], times[0])
    clock.advance(1)
    hub.links.note_activity(DEVICE)
    assert hub.links.presence(DEVICE) == Presence(DEVICE, True, times[0], times[1])
    clock.advance(1)
    hub.links.disconnect(link)
    assert hub.links.presence(DEVICE) == Presence(DEVICE, False, times[2], times[1])
    clock.advance(1)
    hub.links.note_activity(MODULE)  # over HTTPS: without a connection
    assert hub.links.presence(MODULE) == Presence(MODULE, False, NEVER, times[3])
    document = hub.identities.get(DEVICE)
    assert document["connectionStateUpdatedTime"] == "2026-01-31T14:46:10Z"
    assert document["lastActivityTime"] == "2026-01-31T14:46:09Z"


def test_the_presence_of_a_deleted_identity_is_forgotten(hub: IotHub) -> None:
    link = connect(hub, FakeLink())
    assert hub.links.presence(DEVICE).connected
    hub.identities.delete(DEVICE, ANY)
    assert reason(link) == "DeviceNotFound"
    assert hub.links.presence(DEVICE) == Presence(DEVICE)
    put(hub, DEVICE)
    assert hub.links.presence(DEVICE) == Presence(DEVICE, False, NEVER, NEVER)


def test_a_disabled_device_and_its_modules_are_disconnected(hub: IotHub) -> None:
    links = [connect(hub, FakeLink(key)) for key in (DEVICE, MODULE)]
    put(hub, DEVICE, ANY, statusReason="still enabled")
    assert hub.links.links() == links
    put(hub, DEVICE, ANY, status="disabled")
    assert [reason(link) for link in links] == ["DeviceDisabled"] * 2


# --- listeners


async def test_a_listener_is_a_link_that_accepts_the_method(hub: IotHub) -> None:
    assert await hub.links.wait_for_listener(DEVICE, "m", 0) is None
    link = connect(hub, FakeLink(accepts_methods=False))
    assert hub.links.listener(DEVICE, "m") is None
    link.accepts_methods = True
    assert hub.links.listener(DEVICE, "m") is link
    assert await hub.links.wait_for_listener(DEVICE, "m", 0) is link


async def test_a_wait_for_a_listener_ends_with_its_time(hub: IotHub, clock: ManualClock) -> None:
    wait = asyncio.create_task(hub.links.wait_for_listener(DEVICE, "m", 30))
    connect(hub, FakeLink(MODULE))
    connect(hub, FakeLink(accepts_methods=False))
    await clock.pass_time(29.9)
    assert not wait.done()
    await clock.pass_time(0.1)
    assert await wait is None


async def test_every_wait_ends_when_the_listener_comes(hub: IotHub, clock: ManualClock) -> None:
    waits = [asyncio.create_task(hub.links.wait_for_listener(DEVICE, "m", 30)) for _ in range(3)]
    await settle()
    waits[0].cancel()
    link = connect(hub, FakeLink(accepts_methods=False))
    await clock.pass_time(29)
    link.accepts_methods = True
    hub.links.subscribed(link)
    await settle()
    assert waits[0].cancelled()
    assert [await wait for wait in waits[1:]] == [link, link]


def test_the_log_names_a_reason_only_if_the_hub_ends_a_connection(
    hub: IotHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "emulator.hub.links.links")
    link = FakeLink()
    connect(hub, link)
    hub.links.disconnect(link)
    connect(hub, FakeLink())
    hub.links.drop(DEVICE, DeviceDisabled())
    ends = [message for message in caplog.messages if "disconnected" in message]
    assert ends == ["d disconnected", "d disconnected: DeviceDisabled: The device is disabled."]


# --- takeovers


def test_each_takeover_soon_after_another_has_a_longer_delay(
    hub: IotHub, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    connect(hub, FakeLink())
    delays = []
    for _ in range(7):
        delays.append(hub.links.takeover_delay(DEVICE))
        clock.advance(delays[-1])
        connect(hub, FakeLink())
    assert delays == [0, 0.25, 0.5, 1, 2, 4, 4]
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == [f"{DEVICE} is connected from two programs. Stop one of them."]
    assert hub.links.takeover_delay(MODULE) == hub.links.takeover_delay(UNKNOWN) == 0


@pytest.mark.parametrize("seconds", [30, 31, 3600])
def test_single_reconnects_are_not_delayed(
    hub: IotHub, clock: ManualClock, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    connect(hub, FakeLink())
    for _ in range(5):
        assert hub.links.takeover_delay(DEVICE) == 0
        connect(hub, FakeLink())
        clock.advance(seconds)
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


def test_connections_that_follow_each_other_are_no_takeovers(hub: IotHub) -> None:
    for _ in range(5):
        assert hub.links.takeover_delay(DEVICE) == 0
        hub.links.disconnect(connect(hub, FakeLink()))


def test_two_programs_are_named_again_when_they_come_again(
    hub: IotHub, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        for _ in range(5):
            connect(hub, FakeLink(MODULE))
        clock.advance(30)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == [f"{MODULE} is connected from two programs. Stop one of them."] * 2
