from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct

from emulator.disk.store import DiskStore
from emulator.hub.core.store import Key, MemoryStore, Record, Store


class Note(Struct, frozen=True):
    """A record that no store and no feature knows; a note on a folder itself has no name."""

    folder: str
    name: str | None = None
    text: str = ""

    @property
    def key(self) -> Key:
        return (self.folder, self.name)


class Task(Struct, frozen=True):
    """Another kind of record, with the same keys."""

    key: Key


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    with closing(DiskStore(tmp_path / "hub.sqlite")) as store:
        yield store


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.get(Note, ("a", None)) is None
    assert list(store.scan(Note)) == list(store.scan(Note, ("a",))) == []


def test_a_record_is_found_by_its_kind_and_its_whole_key(store: Store) -> None:
    note, task = Note("a", "x"), Task(("a", "x"))
    store.commit(put=(note, task))
    assert store.get(Note, note.key) is note
    assert store.get(Task, note.key) is task
    for key in (("a",), ("a", None), ("a", "X"), ("a", "x", "y")):
        assert store.get(Note, key) is None


def test_a_scan_returns_the_records_below_a_prefix_the_oldest_first(store: Store) -> None:
    b, bx, a, by = Note("b"), Note("b", "x"), Note("a"), Note("b", "y")
    store.commit(put=(b, bx))
    store.commit(put=(a, by, Task(("b", "z"))))
    assert list(store.scan(Note)) == [b, bx, a, by]
    assert list(store.scan(Note, ("b",))) == [b, bx, by]
    assert list(store.scan(Note, ("b", None))) == [b]
    assert list(store.scan(Note, ("b", "x"))) == [bx]
    assert list(store.scan(Note, ("b", "x", "y"))) == []


def test_a_replaced_record_keeps_its_place_and_a_new_one_is_the_last(store: Store) -> None:
    store.commit(put=[Note("a", name) for name in "bca"])
    changed = Note("a", "b", "changed")
    store.commit(put=(changed,))
    assert list(store.scan(Note)) == [changed, Note("a", "c"), Note("a", "a")]
    store.commit(delete=((Note, changed.key),), put=(changed,))
    assert list(store.scan(Note)) == [Note("a", "c"), Note("a", "a"), changed]
    assert list(store.scan(Note, ("a",))) == list(store.scan(Note))


def test_a_scan_does_not_notice_what_is_committed_after_it(store: Store) -> None:
    store.commit(put=(Note("a"), Note("b")))
    scans = [store.scan(Note), store.scan(Note, ("a",))]
    for each in scans[0]:
        store.commit(delete=((Note, each.key),))
    assert [list(scan) for scan in scans] == [[Note("a"), Note("b")], [Note("a")]]
    assert list(store.scan(Note)) == []


def test_a_deletion_is_of_one_kind_and_of_one_key(store: Store) -> None:
    left = [Note("a"), Note("b", "x")]
    task = Task(("a", "x"))
    store.commit(put=(*left, Note("a", "x"), task))
    store.commit(delete=((Note, ("a", "x")), (Note, ("b",)), (Note, ("c", None))))
    assert list(store.scan(Note)) == left
    assert list(store.scan(Task)) == [task]


def failing(*records: Record) -> Iterator[Record]:
    yield from records
    raise OSError("the disk is full")


@pytest.mark.parametrize("put", [failing, lambda note: (note, object())])
def test_a_commit_that_fails_changes_nothing(
    store: Store, put: Callable[[Record], Iterable[Record]]
) -> None:
    store.commit(put=(Note("a"),))
    with pytest.raises((OSError, AttributeError)):
        store.commit(delete=((Note, ("a", None)),), put=put(Note("b")))
    assert list(store.scan(Note)) == [Note("a")]


NOTES = [Note(folder, name) for folder in "abc" for name in (None, "m", "n")]


class StoreMachine(RuleBasedStateMachine):
    """A store against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = MemoryStore()
        self.notes: dict[Key, Note] = {}

    @rule(put=st.lists(st.sampled_from(NOTES)), delete=st.lists(st.sampled_from(NOTES)))
    def commit(self, put: list[Note], delete: list[Note]) -> None:
        self.store.commit(put=put, delete=[(Note, note.key) for note in delete])
        for note in delete:
            self.notes.pop(note.key, None)
        self.notes |= {note.key: note for note in put}

    @rule(folder=st.sampled_from("abc"))
    def scan_a_folder(self, folder: str) -> None:
        expected = [note for note in self.notes.values() if note.folder == folder]
        assert list(self.store.scan(Note, (folder,))) == expected

    @invariant()
    def every_record_is_there_in_order(self) -> None:
        assert list(self.store.scan(Note)) == list(self.notes.values())
        assert all(self.store.get(Note, note.key) is self.notes.get(note.key) for note in NOTES)


TestAnySequenceOfCommits = StoreMachine.TestCase
TestAnySequenceOfCommits.settings = settings(max_examples=30, stateful_step_count=15)
