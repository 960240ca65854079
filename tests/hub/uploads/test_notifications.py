"""The queue of file notifications: locks, expiry, deliveries, and its bound."""

import pytest

from emulator.hub.core import limits
from emulator.hub.core.errors import DeviceMessageLockLost
from emulator.hub.core.store import Store
from emulator.hub.hub import IotHub
from emulator.hub.uploads.notifications import FileNotification, FileNotificationQueued
from emulator.hub.uploads.storage import StoredBlob
from tests.clock import ManualClock
from tests.hub.fakes import CountingStore, make_hub, record_changes
from tests.hub.uploads.shelf import MODIFIED

MINUTE, HOUR = 60, 3600


def add(hub: IotHub, *names: str) -> None:
    for name in names:
        blob = StoredBlob(f"https://h/{name}", 1, MODIFIED)
        hub.store.commit(put=(hub.file_notifications.with_new("d", name, blob),))


def take(hub: IotHub) -> FileNotification:
    item = hub.file_notifications.receive()
    assert item is not None
    return item


def names(hub: IotHub) -> list[str]:
    found = []
    while item := hub.file_notifications.receive():
        found.append(item.blob_name)
    return found


def test_a_notification_is_lent_to_one_service_until_it_is_completed(hub: IotHub) -> None:
    add(hub, "a", "b")
    first = take(hub)
    assert names(hub) == ["b"]
    hub.file_notifications.complete(first.lock_token)
    with pytest.raises(DeviceMessageLockLost):
        hub.file_notifications.complete(first.lock_token)
    with pytest.raises(DeviceMessageLockLost):
        hub.file_notifications.abandon(first.lock_token)


def test_a_lock_lapses_after_a_minute(hub: IotHub, clock: ManualClock) -> None:
    add(hub, "a")
    first = take(hub)
    clock.advance(MINUTE - 1)
    assert names(hub) == []
    clock.advance(1)
    with pytest.raises(DeviceMessageLockLost):
        hub.file_notifications.complete(first.lock_token)
    assert take(hub).delivery_count == 0  # only an abandon counts


def test_each_one_that_is_returned_is_on_the_feed(hub: IotHub, clock: ManualClock) -> None:
    changes = record_changes(hub.feed, FileNotificationQueued)
    add(hub, "a", "b", "c")
    first, second, third = (take(hub) for _ in "abc")
    hub.file_notifications.complete(third.lock_token)
    clock.advance(30)
    assert changes == []
    hub.file_notifications.abandon(second.lock_token)
    assert [each.notification.blob_name for each in changes] == ["b"]
    clock.advance(29)
    assert len(changes) == 1
    clock.advance(1)
    assert [each.notification.blob_name for each in changes] == ["b", "a"]
    with pytest.raises(DeviceMessageLockLost):
        hub.file_notifications.complete(first.lock_token)
    clock.advance(2 * HOUR)
    assert (len(changes), names(hub)) == (2, [])


def test_an_abandoned_notification_has_its_old_place(hub: IotHub) -> None:
    add(hub, "a", "b")
    hub.file_notifications.abandon(take(hub).lock_token)
    assert names(hub) == ["a", "b"]


def test_after_ten_deliveries_it_is_deleted(hub: IotHub) -> None:
    add(hub, "a")
    for _ in range(10):
        hub.file_notifications.abandon(take(hub).lock_token)
    assert names(hub) == []


def test_it_expires_after_an_hour(hub: IotHub, clock: ManualClock) -> None:
    add(hub, "a")
    clock.advance(HOUR - 1)
    add(hub, "b")
    lent = take(hub)
    clock.advance(1)
    hub.file_notifications.abandon(lent.lock_token)  # a returned one expires
    assert names(hub) == ["b"]


def test_a_lent_one_can_be_completed_after_its_expiry(hub: IotHub, clock: ManualClock) -> None:
    add(hub, "a")
    clock.advance(HOUR - 1)
    lent = take(hub)
    clock.advance(2)
    hub.file_notifications.complete(lent.lock_token)


def test_above_the_bound_the_oldest_are_deleted(
    hub: IotHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILE_NOTIFICATIONS", 2)
    add(hub, "a", "b", "c")
    assert names(hub) == ["b", "c"]


def test_the_queue_and_its_locks_outlive_a_restart(
    hub: IotHub, store: CountingStore, clock: ManualClock
) -> None:
    add(hub, "a", "b")
    lent = take(hub)
    hub.file_notifications.stop()
    again = make_hub(store, clock)
    again.resume()
    changes = record_changes(again.feed, FileNotificationQueued)
    assert names(again) == ["b"]
    again.file_notifications.complete(lent.lock_token)
    clock.advance(MINUTE)
    assert [each.notification.blob_name for each in changes] == ["b"]


def test_an_empty_queue_writes_nothing(hub: IotHub, store: CountingStore) -> None:
    before = store.commits
    assert names(hub) == []
    assert store.commits == before


def test_sequence_numbers_go_on(hub: IotHub, store: Store) -> None:
    add(hub, "a")
    hub.file_notifications.complete(take(hub).lock_token)
    add(hub, "b")
    assert take(hub).sequence_number == 2
