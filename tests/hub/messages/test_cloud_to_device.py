"""Cloud-to-device messages in the hub: links, locks, expiry, feedback, and what the feed tells."""

from datetime import timedelta

import pytest

from emulator.hub.core.errors import DeviceMessageLockLost, DeviceNotFound, ServiceUnavailable
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Delivery
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent, FeedbackQueued
from emulator.hub.messages.message import Message
from tests.clock import ManualClock, TickingClock
from tests.hub import fakes


@pytest.fixture(autouse=True)
def device(hub: IotHub) -> None:
    fakes.put(hub, fakes.DEVICE)


def send(hub: IotHub, body: bytes, *, ack: str = "full", expires_in: float | None = None) -> None:
    system = {"message-id": body.decode()}
    if expires_in is not None:
        system["absolute-expiry-time"] = iso(hub.clock.now() + timedelta(seconds=expires_in))
    hub.cloud_to_device.send("d", Message(body, system, {"iothub-ack": ack}))


def connected(hub: IotHub) -> fakes.FakeLink:
    link = fakes.FakeLink()
    fakes.connect(hub, link)
    return link


def receive(hub: IotHub) -> Delivery:
    """Receive a message over HTTPS that must be there."""
    delivery = hub.cloud_to_device.receive("d")
    assert delivery is not None
    return delivery


def pending(hub: IotHub) -> int:
    documents = (hub.identities.get(fakes.DEVICE), hub.twins.get(fakes.DEVICE))
    (count,) = {int(document["cloudToDeviceMessageCount"]) for document in documents}
    return count


def take_feedback(hub: IotHub) -> list[tuple[str, str, str]]:
    records = []
    for _ in range(100):
        batch = hub.cloud_to_device.receive_feedback()
        if batch is None:
            break
        records += batch.records
        assert batch.lock is not None
        hub.cloud_to_device.complete_feedback(batch.lock.token)
    return [(r["originalMessageId"], r["statusCode"], r["enqueuedTimeUtc"]) for r in records]


def outcomes(hub: IotHub) -> list[tuple[str, str]]:
    return [(message_id, status) for message_id, status, _ in take_feedback(hub)]


# --- expiry and feedback


def test_feedback_has_the_time_of_the_expiry(hub: IotHub, clock: ManualClock) -> None:
    expiry = clock.now() + timedelta(seconds=10)
    send(hub, b"short", expires_in=10)
    send(hub, b"usual")
    clock.advance(9)
    assert (pending(hub), take_feedback(hub)) == (2, [])
    clock.advance(1)
    assert pending(hub) == 1
    clock.advance(100)
    assert take_feedback(hub) == [("short", "Expired", iso(expiry))]
    # A message without a time of its own expires after an hour.
    clock.advance(3600)
    assert pending(hub) == 0
    assert outcomes(hub) == [("usual", "Expired")]


def test_a_poll_without_feedback_commits_nothing(hub: IotHub, store: fakes.CountingStore) -> None:
    send(hub, b"one")
    commits = store.commits
    for _ in range(5):
        assert hub.cloud_to_device.receive_feedback() is None
        assert hub.cloud_to_device.pending("d") == 1
    assert store.commits == commits


def test_an_abandoned_batch_of_feedback_returns(hub: IotHub) -> None:
    send(hub, b"one")
    hub.cloud_to_device.reject("d", receive(hub).lock_token)
    batch = hub.cloud_to_device.receive_feedback()
    assert batch is not None
    assert batch.lock is not None
    assert hub.cloud_to_device.receive_feedback() is None
    hub.cloud_to_device.abandon_feedback(batch.lock.token)
    assert outcomes(hub) == [("one", "Rejected")]


def test_a_deleted_device_leaves_no_message_and_no_feedback(hub: IotHub) -> None:
    fakes.put(hub, fakes.MODULE)
    for body in (b"one", b"two", b"three"):
        send(hub, body)
    hub.cloud_to_device.complete("d", receive(hub).lock_token)
    hub.identities.remove(fakes.MODULE, fakes.ANY)
    assert (pending(hub), outcomes(hub)) == (2, [("one", "Success")])
    hub.cloud_to_device.complete("d", receive(hub).lock_token)
    hub.identities.remove(fakes.DEVICE, fakes.ANY)
    fakes.put(hub, fakes.DEVICE)
    assert (pending(hub), take_feedback(hub)) == (0, [])


def test_only_a_registered_and_enabled_device_has_a_queue(hub: IotHub) -> None:
    fakes.put(hub, fakes.DEVICE, fakes.ANY, status="disabled")
    with pytest.raises(DeviceNotFound):
        send(hub, b"one")
    assert hub.cloud_to_device.purge("d") == 0
    hub.identities.remove(fakes.DEVICE, fakes.ANY)
    with pytest.raises(DeviceNotFound):
        hub.cloud_to_device.purge("d")


def test_the_feed_has_each_message_and_each_end_of_one(hub: IotHub, clock: ManualClock) -> None:
    sent = fakes.record_changes(hub.feed, CommandSent)
    ended = fakes.record_changes(hub.feed, CommandEnded)
    send(hub, b"expired", ack="none", expires_in=10)
    send(hub, b"purged", ack="positive")
    clock.advance(10)
    assert hub.cloud_to_device.purge("d") == 1
    assert [(change.device_id, change.command.message.body) for change in sent] == [
        ("d", b"expired"),
        ("d", b"purged"),
    ]
    # Also where the sender wants no feedback.
    assert [(c.outcome.message_id, c.outcome.status, c.outcome.wanted) for c in ended] == [
        ("expired", "Expired", False),
        ("purged", "Purged", False),
    ]
    assert take_feedback(hub) == []


def test_a_message_ends_when_it_expires_also_if_no_client_asks(
    hub: IotHub, clock: ManualClock
) -> None:
    ended = fakes.record_changes(hub.feed, CommandEnded)
    send(hub, b"usual")
    send(hub, b"short", expires_in=10)
    clock.advance(9)
    assert ended == []
    clock.advance(1)
    assert [change.outcome.message_id for change in ended] == ["short"]
    clock.advance(3590)
    assert [change.outcome.message_id for change in ended] == ["short", "usual"]


def test_a_lent_message_that_has_expired_ends_when_its_lock_lapses(
    hub: IotHub, clock: ManualClock
) -> None:
    send(hub, b"one", expires_in=10)
    receive(hub)
    clock.advance(59)
    assert take_feedback(hub) == []
    clock.advance(1)
    assert outcomes(hub) == [("one", "Expired")]


def test_the_feed_has_feedback_that_is_new_and_that_is_returned(
    hub: IotHub, clock: ManualClock
) -> None:
    changes = fakes.record_changes(hub.feed, FeedbackQueued)
    send(hub, b"one")
    send(hub, b"quiet", ack="none")
    for _ in range(2):
        hub.cloud_to_device.complete("d", receive(hub).lock_token)
    assert len(changes) == 1
    batch = hub.cloud_to_device.receive_feedback()
    assert batch is not None
    hub.cloud_to_device.abandon_feedback(batch.lock_token)
    assert len(changes) == 2
    assert hub.cloud_to_device.receive_feedback() is not None
    clock.advance(59)
    assert len(changes) == 2
    clock.advance(1)
    assert len(changes) == 3
    assert outcomes(hub) == [("one", "Success")]
    clock.advance(7200)
    assert len(changes) == 3


def test_a_store_that_can_not_write_delays_an_expiry(
    hub: IotHub, store: fakes.CountingStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(**_: object) -> None:
        raise ServiceUnavailable

    send(hub, b"one", expires_in=10)
    with monkeypatch.context() as broken:
        broken.setattr(store, "commit", commit)
        clock.advance(30)
    assert take_feedback(hub) == []
    clock.advance(1)
    assert outcomes(hub) == [("one", "Expired")]


def test_queues_that_are_due_at_once_share_the_turns_of_the_event_loop() -> None:
    hub = fakes.make_hub(clock=(clock := TickingClock()))
    expiry, counts = iso(clock.now() + timedelta(seconds=10)), list[int]()
    ended = fakes.record_changes(hub.feed, CommandEnded)
    for name in "abc":
        fakes.put(hub, IdentityKey(name))
        hub.cloud_to_device.send(name, Message(b"", {"absolute-expiry-time": expiry}))

    def look() -> None:
        counts.append(len(ended))
        if len(counts) < 5:
            clock.call_later(0, look)

    clock.call_later(10, look)
    clock.advance(10)
    assert counts == [0, 1, 2, 3, 3]


async def test_a_hub_that_has_stopped_ends_no_message(hub: IotHub, clock: ManualClock) -> None:
    send(hub, b"one", expires_in=10)
    ended = fakes.record_changes(hub.feed, CommandEnded)
    await hub.stop()
    clock.advance(10)
    assert ended == []


# --- links and locks


def test_an_expired_message_is_not_pushed_and_frees_its_place(
    hub: IotHub, clock: ManualClock
) -> None:
    for number in range(50):
        send(hub, str(number).encode(), expires_in=10 if number else 1000)
    clock.advance(10)
    send(hub, b"next")
    assert connected(hub).bodies == [b"0", b"next"]


def test_a_lock_over_https_lapses_after_a_minute(hub: IotHub, clock: ManualClock) -> None:
    send(hub, b"one")
    first = receive(hub)
    clock.advance(59)
    assert hub.cloud_to_device.receive("d") is None
    assert pending(hub) == 1
    clock.advance(1)
    second = receive(hub)
    assert (second.body, second.delivery_count, second.redelivered) == (b"one", 0, True)
    with pytest.raises(DeviceMessageLockLost):
        hub.cloud_to_device.complete("d", first.lock_token)
    assert take_feedback(hub) == []


def test_a_pushed_message_is_locked_while_the_connection_lasts(
    hub: IotHub, clock: ManualClock
) -> None:
    send(hub, b"one")
    link = connected(hub)
    clock.advance(3000)
    send(hub, b"two")
    assert link.bodies == [b"one", b"two"]
    assert hub.cloud_to_device.receive("d") is None
    hub.links.disconnect(link)
    again = connected(hub)
    assert again.bodies == [b"one", b"two"]
    assert all(delivery.redelivered for delivery in again.delivered)


def test_a_pushed_message_that_expired_ends_with_its_connection(
    hub: IotHub, clock: ManualClock
) -> None:
    send(hub, b"one", expires_in=10)
    link = connected(hub)
    clock.advance(20)
    hub.links.disconnect(link)
    assert outcomes(hub) == [("one", "Expired")]
    assert connected(hub).bodies == []


def test_a_message_abandoned_over_https_is_pushed_to_the_device(hub: IotHub) -> None:
    send(hub, b"one")
    token = receive(hub).lock_token
    link = connected(hub)
    assert link.bodies == []
    hub.cloud_to_device.abandon("d", token)
    assert link.bodies == [b"one"]
    assert link.delivered[0].delivery_count == 1


def test_a_lock_over_https_outlives_a_connection(hub: IotHub) -> None:
    """The end of a connection returns its own messages only (IoT Hub docs: life cycle)."""
    send(hub, b"one")
    token = receive(hub).lock_token
    hub.links.disconnect(connected(hub))
    hub.cloud_to_device.complete("d", token)
    assert outcomes(hub) == [("one", "Success")]


def test_a_message_is_pushed_when_its_lock_over_https_lapses(
    hub: IotHub, clock: ManualClock
) -> None:
    send(hub, b"one")
    receive(hub)
    link = connected(hub)
    clock.advance(59)
    assert link.bodies == []
    clock.advance(1)
    assert link.bodies == [b"one"]


def test_a_device_that_completes_a_message_was_active(hub: IotHub, clock: ManualClock) -> None:
    send(hub, b"one")
    token = receive(hub).lock_token
    clock.advance(5)
    hub.cloud_to_device.complete("d", token)
    assert hub.identities.get(fakes.DEVICE)["lastActivityTime"] == "2026-01-31T14:46:13Z"


def test_a_device_that_is_not_subscribed_and_a_module_receive_no_message(hub: IotHub) -> None:
    fakes.put(hub, fakes.MODULE)
    link, module = fakes.FakeLink(accepts_commands=False), fakes.FakeLink(fakes.MODULE)
    for each in (link, module):
        fakes.connect(hub, each)
    send(hub, b"one")
    assert (link.bodies, module.bodies) == ([], [])
    link.accepts_commands = True
    hub.links.subscribed(link)
    assert (link.bodies, module.bodies) == ([b"one"], [])


def test_a_link_can_have_locks_of_a_minute(hub: IotHub, clock: ManualClock) -> None:
    link = fakes.connect(hub, fakes.FakeLink(lock_seconds=60))
    send(hub, b"one")
    clock.advance(30)
    send(hub, b"two")
    clock.advance(29)
    assert link.bodies == [b"one", b"two"]
    clock.advance(1)
    assert link.bodies == [b"one", b"two", b"one"]
    with pytest.raises(DeviceMessageLockLost):
        hub.cloud_to_device.complete("d", link.delivered[0].lock_token)
    hub.cloud_to_device.complete("d", link.delivered[2].lock_token)
    clock.advance(30)
    assert link.bodies[3:] == [b"two"]
    hub.links.disconnect(link)
    clock.advance(600)
    assert pending(hub) == 1


def test_a_receiver_that_is_gone_returns_its_messages(hub: IotHub) -> None:
    link = connected(hub)
    send(hub, b"one")
    send(hub, b"two")
    hub.cloud_to_device.complete("d", link.delivered[1].lock_token)
    hub.cloud_to_device.release("d", link.unacknowledged)
    assert receive(hub).body == b"one"
    assert hub.cloud_to_device.receive("d") is None
