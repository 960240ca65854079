"""The store in a file: what was committed is there after a restart, as it was written."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from emulator.disk import store as stores
from emulator.disk.store import DiskStore
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.json import dumps, loads
from emulator.hub.core.store import Key
from emulator.hub.core.times import NEVER
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.jobs.records import DeviceJobStatus, Job, JobKey, JobStatus, JobType
from emulator.hub.messages.message import Message
from emulator.hub.twins import twin as twins

_NOW = datetime(2026, 1, 31, 14, 46, 8, 123456, tzinfo=UTC)


class Note(Struct, frozen=True):
    """A record that no store and no feature knows."""

    key: Key
    value: Any = None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.sqlite"


@contextmanager
def opened(path: Path) -> Iterator[DiskStore]:
    with closing(DiskStore(path)) as store:
        yield store


def test_records_are_there_after_a_restart_in_their_order(path: Path) -> None:
    with opened(path) as store:
        store.commit(put=[Note((name, None)) for name in "cab"])
        store.commit(put=[Note(("a", None), "changed"), Note(("b", "x"))])
        store.commit(delete=[(Note, ("b", None))])
    with opened(path) as store:
        assert store.get(Note, ("a", None)) == Note(("a", None), "changed")
        assert [each.key for each in store.scan(Note)] == [("c", None), ("a", None), ("b", "x")]
        assert store.scan(Note, ("b",)) == [Note(("b", "x"))]
        assert store.get(Note, ("b", "x")) is store.get(Note, ("b", "x"))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1.0, "b": 1.50, "c": 1e5, "d": -0, "e": -0.0, "f": 1E+2}',
        '{"big": 123456789012345678901234567890, "small": 1e-400, "long": 0.10000000000000000555}',
        '{"null": null, "true": true, "list": [1, [2.0, {"x": "\\u00e9"}]], "": {}}',
    ],
)
def test_numbers_keep_their_text(path: Path, text: str) -> None:
    value = loads(text)
    twin = twins.create(IdentityKey("d"), _NOW)
    with opened(path) as store:
        store.commit(put=(Note(("n",), value), Twin(twin, value)))
    with opened(path) as store:
        for found in (store.get(Note, ("n",)), store.get(twins.Twin, twin.key)):
            assert found is not None
            kept = found.value if isinstance(found, Note) else found.tags
            assert dumps(kept) == dumps(value)


def Twin(twin: twins.Twin, tags: Any) -> twins.Twin:  # noqa: N802 - reads as the record
    return twins.Twin(twin.key, tags, twin.desired, twin.reported, twin.revision)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=_VALUES)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_read_back(path: Path, value: Any) -> None:
    try:
        value = loads(dumps(value))
    except Exception:  # noqa: BLE001 - not a value that a client can send
        return
    with opened(path) as store:
        store.commit(put=(Note(("n",), value),))
    with opened(path) as store:
        found = store.get(Note, ("n",))
    assert found is not None
    assert dumps(found.value) == dumps(value)


def test_a_job_has_its_times_and_its_counts_again(path: Path) -> None:
    counts = Counter({DeviceJobStatus.PENDING: 3, DeviceJobStatus.FAILED: 1})
    job = Job(JobKey("j"), JobType.TWIN, {"a": 1}, "*", _NOW, NEVER, 60, JobStatus.RUNNING)
    job = Job(*(getattr(job, name) for name in job.__struct_fields__[:-2]), devices=counts)
    with opened(path) as store:
        store.commit(put=(job,))
    with opened(path) as store:
        assert store.get(Job, job.key) == job
        assert store.get(Job, job.key).document() == job.document()  # type: ignore[union-attr]


def test_bytes_and_missing_values_of_a_message_are_kept(path: Path) -> None:
    messages = [Message(b"\xff\0", {"message-id": "1"}, {"a": None, "b": ""}), Message(b"")]
    with opened(path) as store:
        for number, message in enumerate(messages):
            store.append(number, message, oldest=0)
    with opened(path) as store:
        assert list(store.entries(Message)) == messages


def test_a_log_forgets_what_is_older(path: Path) -> None:
    with opened(path) as store:
        for number in range(100):  # old entries are deleted together
            store.append(number, Note((str(number),), "x" * 10_000), oldest=number - 2)
        store.append(100, Note(("last",)), oldest=100)  # all others at once
        store.append(101, Note(("next",)), oldest=100)
    with opened(path) as store:
        assert [each.key for each in store.entries(Note)] == [("last",), ("next",)]


def test_old_entries_of_a_log_are_deleted_before_they_are_many(path: Path) -> None:
    with opened(path) as store:
        for number in range(100):
            store.append(number, Note((str(number),), "x" * 10_000), oldest=number - 2)
    with opened(path) as store:
        kept = [int(each.key[0]) for each in store.entries(Note)]
        assert kept == list(range(kept[0], 100))
        assert 3 <= len(kept) <= 3 + 8


async def test_records_that_can_wait_are_written_later_a_part_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.disk.store._DEFER_SECONDS", 0.01)
    notes = [Note((f"note {number}",)) for number in range(500)]
    sizes: asyncio.Queue[int] = asyncio.Queue()
    with opened(path) as store:
        write = store._write
        monkeypatch.setattr(
            store, "_write", lambda each: (sizes.put_nowait(len(each)), write(each))
        )
        for note in notes:
            store.defer(note)
        assert store.scan(Note) == notes
        async with asyncio.timeout(10):
            assert [await sizes.get() for _ in range(3)] == [200, 200, 100]
        assert not store._deferred
        store.defer(Note(("last",)))  # or at the end
    with opened(path) as store:
        assert store.scan(Note) == [*notes, Note(("last",))]


async def test_a_record_that_changes_all_the_time_waits_again_after_each_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.disk.store._DEFER_SECONDS", 0.01)
    notes = [Note((f"note {number}",)) for number in range(201)]
    sizes: asyncio.Queue[int] = asyncio.Queue()
    with opened(path) as store:
        write = store._write

        def count(statements: Any) -> None:
            write(statements)
            sizes.put_nowait(len(statements))
            if len(statements) == 200:
                asyncio.get_running_loop().call_soon(store.defer, notes[0])

        monkeypatch.setattr(store, "_write", count)
        for note in notes:
            store.defer(note)
        async with asyncio.timeout(10):
            assert [await sizes.get() for _ in range(3)] == [200, 1, 1]


def test_a_deleted_record_that_was_to_wait_stays_deleted(path: Path) -> None:
    with opened(path) as store:
        store.defer(Note(("a",)))
        store.commit(delete=[(Note, ("a",))])
    with opened(path) as store:
        assert store.scan(Note) == []


def test_a_commit_that_cannot_be_written_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(path) as store:
        store.commit(put=(Note(("a",)), Note(("b",))))
        store._execute("PRAGMA max_page_count = 1")  # a disk that is full
        put = [Note(("a",), "x" * 100_000), Note(("c",))]
        with pytest.raises(ServiceUnavailable):
            store.commit(put=put, delete=[(Note, ("b",))])
        with pytest.raises(ServiceUnavailable):
            store.append(1, Note(("e",), "x" * 100_000), oldest=0)
        assert store.scan(Note) == [Note(("a",)), Note(("b",))]
        assert caplog.text.count("free disk space") == 1
        store._execute("PRAGMA max_page_count = 1000000")
        store.commit(put=put)
        assert "can be written again" in caplog.text
    with opened(path) as store:
        assert [each.key for each in store.scan(Note)] == [("a",), ("b",), ("c",)]


def remove(path: Path, *, another: bool) -> None:
    path.unlink()
    if another:
        path.touch()


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no open file")
@pytest.mark.parametrize("another", [False, True])
async def test_a_file_that_is_removed_is_a_warning(
    path: Path, another: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stores, "_LOOK_SECONDS", 0.01)
    with opened(path) as store:
        store.commit(put=[Note(("a",))])
        await asyncio.sleep(0.05)
        assert caplog.text == ""
        remove(path, another=another)
        for _ in range(3):
            store.commit(put=[Note(("b",))])
            await asyncio.sleep(0.05)
        assert store.get(Note, ("b",)) is not None
    assert caplog.text.count("hub.sqlite was removed or replaced while the hub runs") == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no open file")
def test_a_file_that_is_removed_is_a_warning_at_the_end(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(path):
        path.unlink()
    assert "was removed or replaced" in caplog.text


def test_two_kinds_of_one_name_are_a_mistake(path: Path) -> None:
    other = type("Note", (), {})
    with opened(path) as store:
        store.commit(put=(Note(("a",)),))
        with pytest.raises(TypeError, match="Note"):
            store.get(other, ("a",))
