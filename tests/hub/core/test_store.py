from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emulator.hub.core.store import MemoryStore, Store
from emulator.hub.identities import identity as identities
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.messages import commands as cloud_to_device
from emulator.hub.messages.commands import CommandQueue
from emulator.hub.messages.feedback import FeedbackQueue
from emulator.hub.messages.message import Message
from emulator.hub.twins import twin as twins
from emulator.hub.twins.twin import Twin

NOW = datetime(2026, 1, 31, tzinfo=UTC)
DEVICES = ["a", "b", "c"]
KEYS = [IdentityKey(device, module) for device in DEVICES for module in (None, "m", "n")]


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def identity(key: IdentityKey) -> Identity:
    return identities.create(key, {"deviceId": key.device_id, "moduleId": key.module_id}, NOW)


def twin(key: IdentityKey) -> Twin:
    return twins.create(key, NOW)


def queue(device_id: str, messages: int = 1) -> CommandQueue:
    result = CommandQueue(device_id)
    for _ in range(messages):
        result = cloud_to_device.send(result, Message(b"", {}, {}), NOW).queue
    return result


# --- what is not there


def test_a_new_store_is_empty(store: Store) -> None:
    key = IdentityKey("a")
    assert (store.identity(key), store.twin(key)) == (None, None)
    assert list(store.devices()) == []
    assert list(store.keys_of("a")) == []
    assert store.command_queue("a") == CommandQueue("a")
    assert list(store.devices_with_commands()) == []
    assert store.feedback() == FeedbackQueue()


def test_deleting_what_is_not_there_changes_nothing(store: Store) -> None:
    device = identity(IdentityKey("a"))
    store.commit(put=(device,))
    store.commit(delete=(IdentityKey("b"), IdentityKey("a", "m")))
    assert list(store.devices()) == [device]


# --- what is put


def test_a_record_is_replaced_by_the_next_of_its_key(store: Store) -> None:
    key = IdentityKey("a")
    first, second = identity(key), identity(key)
    store.commit(put=(first, twin(key)))
    kept = store.twin(key)
    store.commit(put=(second,))
    assert store.identity(key) is second
    assert store.twin(key) is kept  # an identity's write leaves its twin alone
    assert list(store.devices()) == [second]


def test_one_commit_takes_records_of_every_kind(store: Store) -> None:
    key = IdentityKey("a")
    records = (identity(key), twin(key), queue("a"), FeedbackQueue())
    store.commit(put=records)
    read = (store.identity(key), store.twin(key), store.command_queue("a"), store.feedback())
    assert read == records


def test_a_commit_deletes_after_it_puts(store: Store) -> None:
    a, b = IdentityKey("a"), IdentityKey("b")
    store.commit(put=(identity(a), twin(a)))
    store.commit(put=(identity(b), twin(b)), delete=(a,))
    assert [each.key for each in store.devices()] == [b]
    assert store.twin(a) is None


def test_devices_are_listed_oldest_first(store: Store) -> None:
    for name in "bca":
        store.commit(put=(identity(IdentityKey(name)),))
    store.commit(put=(identity(IdentityKey("b")),))  # an update doesn't make it younger
    assert [each.key.device_id for each in store.devices()] == ["b", "c", "a"]
    store.commit(delete=(IdentityKey("b"),))
    store.commit(put=(identity(IdentityKey("b")),))
    assert [each.key.device_id for each in store.devices()] == ["c", "a", "b"]


def test_a_device_and_its_modules_are_a_family(store: Store) -> None:
    family = [IdentityKey("a"), IdentityKey("a", "m"), IdentityKey("a", "n")]
    store.commit(put=[identity(key) for key in family])
    store.commit(put=(identity(IdentityKey("b")), identity(IdentityKey("b", "m"))))
    assert list(store.keys_of("a")) == family
    # A module is no device.
    assert [each.key for each in store.devices()] == [IdentityKey("a"), IdentityKey("b")]
    store.commit(delete=(IdentityKey("a", "m"),))
    assert list(store.keys_of("a")) == [IdentityKey("a"), IdentityKey("a", "n")]


def test_ids_differ_by_case(store: Store) -> None:
    store.commit(put=(identity(IdentityKey("a")),))
    assert store.identity(IdentityKey("A")) is None


# --- messages


def test_a_device_is_listed_while_messages_wait_for_it(store: Store) -> None:
    for name in "ab":
        store.commit(put=(identity(IdentityKey(name)), queue(name)))
    assert list(store.devices_with_commands()) == ["a", "b"]
    store.commit(put=(CommandQueue("a", next_sequence_number=2),))
    assert list(store.devices_with_commands()) == ["b"]
    assert store.command_queue("a").next_sequence_number == 2  # it doesn't start anew


def test_messages_go_with_their_device_and_not_with_a_module(store: Store) -> None:
    module = IdentityKey("a", "m")
    store.commit(put=(identity(IdentityKey("a")), identity(module), queue("a", messages=3)))
    store.commit(delete=(module,))
    assert len(store.command_queue("a").commands) == 3
    store.commit(delete=(IdentityKey("a"),))
    assert store.command_queue("a") == CommandQueue("a")
    assert list(store.devices_with_commands()) == []


# --- any sequence of commits


class StoreMachine(RuleBasedStateMachine):
    """A store against two plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = MemoryStore()
        self.identities: dict[IdentityKey, Identity] = {}
        self.twins: dict[IdentityKey, Twin] = {}

    @rule(put=st.lists(st.sampled_from(KEYS)), delete=st.lists(st.sampled_from(KEYS)))
    def commit(self, put: list[IdentityKey], delete: list[IdentityKey]) -> None:
        records = [make(key) for key in put for make in (identity, twin)]
        self.store.commit(put=records, delete=delete)
        for record in records:
            kind = self.twins if isinstance(record, Twin) else self.identities
            kind[record.key] = record  # type: ignore[assignment]
        for key in delete:
            self.identities.pop(key, None)
            self.twins.pop(key, None)

    @invariant()
    def everything_is_read_as_it_was_put(self) -> None:
        for key in KEYS:
            assert self.store.identity(key) is self.identities.get(key)
            assert self.store.twin(key) is self.twins.get(key)
        for device in DEVICES:
            family = {key for key in self.identities if key.device_id == device}
            assert set(self.store.keys_of(device)) == family
        devices = [each.key for each in self.store.devices()]
        assert sorted(devices) == sorted(key for key in self.identities if key.module_id is None)


TestAnySequenceOfCommits = StoreMachine.TestCase
TestAnySequenceOfCommits.settings = settings(max_examples=30, stateful_step_count=15)
