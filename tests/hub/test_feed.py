import asyncio
from typing import Any

import pytest

from emulator.hub.feed import Change, Feed
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityChanged, IdentityCreated, IdentityDeleted
from emulator.hub.jobs.changes import JobEnded, JobStarted
from emulator.hub.links.link import Connected, Disconnected, Subscribed
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent
from emulator.hub.messages.message import Message
from emulator.hub.methods.methods import MethodCalled, MethodEnded
from emulator.hub.twins.twin import TwinChanged, TwinDeleted
from tests.clock import settle
from tests.hub.fakes import ANY, DEVICE, FakeLink, connect, put, record_changes


class Created(Change, frozen=True):
    number: int


class Deleted(Change, frozen=True):
    number: int


def test_a_subscriber_receives_its_kind_of_change_in_order_before_publish_returns() -> None:
    feed = Feed()
    created, every = record_changes(feed, Created), record_changes(feed)
    published = [Created(1), Deleted(2), Created(3)]
    for count, change in enumerate(published, start=1):
        feed.publish(change)
        assert every == published[:count]
    assert created == [Created(1), Created(3)]


def test_subscribers_are_called_in_order_and_those_to_every_change_last() -> None:
    feed, calls = Feed(), []
    feed.subscribe(Change, lambda change: calls.append("every"))
    feed.subscribe(Created, lambda change: calls.append("first"))
    feed.subscribe(Created, lambda change: calls.append("second"))
    feed.publish(Created(1))
    assert calls == ["first", "second", "every"]


def test_a_change_that_a_subscriber_causes_follows_the_present_one() -> None:
    feed = Feed()
    feed.subscribe(Created, lambda change: feed.publish(Deleted(change.number)))
    feed.subscribe(Deleted, lambda change: change.number == 1 and feed.publish(Created(2)))
    every = record_changes(feed)
    feed.publish(Created(1))
    assert every == [Created(1), Deleted(1), Created(2), Deleted(2)]


def test_a_subscription_ends_also_while_a_change_is_delivered() -> None:
    feed, calls = Feed(), []

    def once(change: Created) -> None:
        calls.append(change)
        end()

    end = feed.subscribe(Created, once)
    others = record_changes(feed, Created)
    feed.publish(Created(1))
    feed.publish(Created(2))
    assert (calls, others) == ([Created(1)], [Created(1), Created(2)])


def test_a_subscriber_that_fails_is_logged_and_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = Feed()
    feed.subscribe(Created, lambda change: 1 // 0)
    every = record_changes(feed)
    feed.publish(Created(1))
    feed.publish(Deleted(2))
    assert every == [Created(1), Deleted(2)]
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "A subscriber to Created failed")
    assert record.exc_info is not None


async def test_the_life_of_a_device_is_a_sequence_of_changes(hub: IotHub) -> None:
    changes, link = record_changes(hub.feed), FakeLink()

    def take(*kinds: type[Change]) -> Any:
        """Return the changes since the last call, which are of these kinds."""
        taken, changes[:] = list(changes), []
        assert [type(change) for change in taken] == list(kinds)
        return taken if len(taken) != 1 else taken[0]

    put(hub, DEVICE)
    created = take(IdentityCreated)
    put(hub, DEVICE, ANY, statusReason="new")
    changed = take(IdentityChanged)
    assert (changed.key, changed.before) == (DEVICE, created.identity)
    assert changed.identity.status_reason == "new"

    connect(hub, link)
    connected, subscribed = take(Connected, Subscribed)
    assert (connected.admission.key, connected.time) == (DEVICE, hub.clock.now())
    assert subscribed.link is link

    hub.twins.report(DEVICE, {"r": 1}, None)
    reported = take(TwinChanged)
    assert (reported.key, reported.reported) == (DEVICE, {"r": 1})
    assert (reported.tags, reported.desired, reported.replaced) == (None, None, False)
    hub.twins.patch(DEVICE, {"tags": {"t": 1}, "properties": {"desired": {"x": None}}}, ANY)
    patched = take(TwinChanged)
    assert (patched.tags, patched.desired) == ({"t": 1}, {"x": None, "$version": 2})
    hub.twins.replace(DEVICE, {"tags": {"u": 1}}, ANY)
    replaced = take(TwinChanged)
    assert (replaced.tags, replaced.desired) == ({"u": 1}, {"$version": 3})
    assert (replaced.replaced, replaced.twin.tags) == (True, {"u": 1})

    hub.cloud_to_device.send("d", Message(b"hello", {"message-id": "m"}))
    sent = take(CommandSent)
    assert (sent.device_id, sent.command.message.body) == ("d", b"hello")
    hub.cloud_to_device.complete("d", link.delivered[0].lock_token)
    outcome = take(CommandEnded).outcome
    assert (outcome.device_id, outcome.message_id, outcome.status) == ("d", "m", "Success")

    call = asyncio.create_task(hub.methods.invoke(DEVICE, {"methodName": "reboot"}))
    await settle()
    called = take(MethodCalled)
    assert (called.key, called.request.name) == (DEVICE, "reboot")
    hub.methods.respond(link, called.request_id, 200, b"[1]")
    await call
    ended = take(MethodEnded)
    assert (ended.request_id, ended.name, ended.outcome) == (
        called.request_id,
        "reboot",
        call.result(),
    )

    job = {"type": "scheduleUpdateTwin", "updateTwin": {"etag": "*", "tags": {"j": 1}}}
    hub.jobs.create("j", {**job, "queryCondition": "*"})
    await settle(100)
    started, written, finished = take(JobStarted, TwinChanged, JobEnded)
    assert (started.job.key, written.tags) == (finished.job.key, {"j": 1})
    assert finished.job.status.value == "completed"

    hub.links.disconnect(link)
    disconnected = take(Disconnected)
    assert (disconnected.link, disconnected.reason.name) == (link, "DeviceNotOnline")
    hub.identities.delete(DEVICE, ANY)
    deleted, twin_deleted = take(IdentityDeleted, TwinDeleted)
    assert twin_deleted.key == deleted.key
    assert (deleted.key, deleted.time) == (DEVICE, hub.clock.now())
