"""Blobs in a folder, without the server: what else can stand there."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from emulator.storage.blob_folder import BlobFile, BlobFolder, BlockChoice, Headers
from emulator.storage.blob_names import file_of
from tests.clock import START
from tests.support import PATIENCE

NOBODY = Headers()


@pytest.fixture
def folder(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "uploads")


def put(folder: BlobFolder, name: str, content: bytes) -> BlobFile:
    new = folder.create()
    try:
        new.write(content)
        return folder.put(name, new, NOBODY, START, lambda _: None)
    finally:
        new.discard()


def stage(folder: BlobFolder, name: str, block_id: bytes, content: bytes) -> None:
    new = folder.create()
    try:
        new.write(content)
        folder.stage(name, block_id, new, START)
    finally:
        new.discard()


def read(folder: BlobFolder, name: str) -> bytes | None:
    opened = folder.open(name)
    if opened is None:
        return None
    with opened[1] as file:
        return file.read()


def test_a_blob_beside_a_folder_of_its_name(folder: BlobFolder) -> None:
    names = ["d/a", "d/a/b", "d/a/b/c", "d"]
    for order in (names, names[::-1]):
        for name in order:
            put(folder, name, name.encode())
        assert [read(folder, name) for name in names] == [name.encode() for name in names]
        for name in names:
            folder.delete(name, lambda _: None)
        assert [read(folder, name) for name in names] == [None] * 4


def test_a_file_that_is_no_blob_is_never_replaced(folder: BlobFolder, tmp_path: Path) -> None:
    """So two names that are one file on some systems, as `A` and `a`, stay two blobs."""
    other = tmp_path / "uploads" / "d" / "a.txt"
    other.parent.mkdir()
    other.write_bytes(b"other")
    assert folder.find("d/a.txt") is None
    assert put(folder, "d/a.txt", b"blob").file.startswith("d_a~")
    assert (other.read_bytes(), read(folder, "d/a.txt")) == (b"other", b"blob")
    assert put(folder, "d/a.txt", b"newer").size == 5
    assert (other.read_bytes(), read(folder, "d/a.txt")) == (b"other", b"newer")


def test_blobs_and_blocks_outlive_the_process(folder: BlobFolder, tmp_path: Path) -> None:
    put(folder, "d/a", b"a")
    stage(folder, "d/b", b"01", b"1")
    left = folder.create()
    left.write(b"half")
    left.close(to_disk=False)
    again = BlobFolder(tmp_path / "uploads")
    assert not left.path.exists()
    assert read(again, "d/a") == b"a"
    stage(again, "d/b", b"02", b"2")
    choices = [BlockChoice(each, committed=False, uncommitted=True) for each in (b"02", b"01")]
    again.commit("d/b", choices, NOBODY, START, lambda _: None)
    assert read(again, "d/b") == b"21"


def test_a_damaged_record_is_no_blob(folder: BlobFolder, tmp_path: Path) -> None:
    put(folder, "d/a", b"a")
    (record,) = (tmp_path / "uploads" / ".iothub" / "records").iterdir()
    for content in (b"", b"{}", b"\xff", record.read_bytes()[:-1]):
        record.write_bytes(content)
        assert folder.find("d/a") is None
    put(folder, "d/a", b"b")
    assert read(folder, "d/a") == b"b"


def test_a_reader_has_the_blob_that_it_opened(folder: BlobFolder) -> None:
    put(folder, "d/a", b"old")
    opened = folder.open("d/a")
    assert opened is not None
    put(folder, "d/a", b"newer")
    with opened[1] as file:
        assert (opened[0].size, file.read()) == (3, b"old")


def test_a_reader_sees_no_half_of_a_write(
    folder: BlobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "d/a", b"old")
    seen: list[tuple[BlobFile | None, bytes | None]] = []
    reader = Thread(target=lambda: seen.append((folder.find("d/a"), read(folder, "d/a"))))
    write_record = folder._write_record

    def read_meanwhile(name: str, blob: BlobFile) -> None:
        write_record(name, blob)
        reader.start()
        reader.join(0.2)

    monkeypatch.setattr(folder, "_write_record", read_meanwhile)
    written = put(folder, "d/a", b"newer")
    reader.join(PATIENCE)
    assert seen == [(written, b"newer")]


def test_a_file_that_a_person_removes_is_no_blob(folder: BlobFolder, tmp_path: Path) -> None:
    put(folder, "d/a", b"a")
    find = folder._find

    def find_and_remove(name: str) -> BlobFile | None:
        found = find(name)
        (tmp_path / "uploads" / "d" / "a").unlink()
        return found

    folder._find = find_and_remove  # type: ignore[method-assign]
    assert folder.open("d/a") is None


def test_an_upload_that_fails_at_its_end_changes_nothing(folder: BlobFolder) -> None:
    put(folder, "d/a", b"old")
    etag = folder.find("d/a")

    def refuse(_: BlobFile | None) -> None:
        raise ValueError

    new = folder.create()
    new.write(b"new")
    with pytest.raises(ValueError):
        folder.put("d/a", new, NOBODY, START, refuse)
    new.discard()
    assert (read(folder, "d/a"), folder.find("d/a")) == (b"old", etag)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_file_that_can_not_be_replaced_changes_nothing(
    folder: BlobFolder, tmp_path: Path, is_new: bool
) -> None:
    file, aside = tmp_path / "uploads" / "d" / "a", tmp_path / "aside"
    headers = Headers({"content-type": "image/jpeg"})
    if not is_new:
        new = folder.create()
        folder.put("d/a", new, headers, START, lambda _: None)
    before = folder.find("d/a")

    def replace_by_a_folder(_: BlobFile | None) -> None:
        file.parent.mkdir(exist_ok=True)
        if is_new:
            folder._place = lambda name: file_of(name)  # type: ignore[method-assign]
        else:
            file.rename(aside)
        file.mkdir()

    new = folder.create()
    with pytest.raises(OSError):
        folder.put("d/a", new, NOBODY, START, replace_by_a_folder)
    new.discard()
    file.rmdir()
    if not is_new:
        aside.rename(file)
    assert folder.find("d/a") == before
    assert len(list((tmp_path / "uploads" / ".iothub" / "records").iterdir())) == (not is_new)


def test_a_folder_that_can_not_be_deleted_stops_no_upload(
    folder: BlobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(folder, "d/a", b"1", b"1")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    folder.clear()
    again = BlobFolder(tmp_path / "uploads")
    put(again, "d/a", b"a")
    assert read(again, "d/a") == b"a"


def test_a_person_removes_the_folder(folder: BlobFolder, tmp_path: Path) -> None:
    put(folder, "d/a", b"a")
    stage(folder, "d/a", b"1", b"1")
    root = tmp_path / "uploads"
    own = root / ".iothub"
    for removed in (root, own, own / "blocks", own / "records"):
        shutil.rmtree(removed)
        assert folder.sweep(START) is (removed == own / "records")  # then the blocks are left
        put(folder, "d/b", b"b")
        assert read(folder, "d/b") == b"b"
        stage(folder, "d/a", b"longer id", b"1")
        assert len(folder.uncommitted("d/a")) == 1
    shutil.rmtree(root)
    folder.clear()
    put(folder, "d/a", b"a")
    assert read(folder, "d/a") == b"a"


def test_times_before_1970_and_after_2038(folder: BlobFolder) -> None:
    new = folder.create()
    later = START + timedelta(days=36_500)
    folder.put("d/a", new, NOBODY, later, lambda _: None)
    found = folder.find("d/a")
    assert found is not None
    assert found.modified == later


def test_old_blocks_are_swept(folder: BlobFolder) -> None:
    stage(folder, "d/a", b"1", b"1")
    assert folder.sweep(START) is True
    assert len(folder.uncommitted("d/a")) == 1
    assert folder.sweep(START + timedelta(seconds=1)) is False
    assert folder.uncommitted("d/a") == []
    stage(folder, "d/a", b"longer id", b"1")  # the ids can have another length now


def test_clear(folder: BlobFolder, tmp_path: Path) -> None:
    put(folder, "d/a", b"a")
    put(folder, "x", b"a")
    stage(folder, "d/a", b"1", b"1")
    open_upload = folder.create()
    folder.clear()
    open_upload.write(b"x")
    folder.put("d/b", open_upload, NOBODY, START, lambda _: None)
    files = [each for each in (tmp_path / "uploads").rglob("*") if each.is_file()]
    assert {each.name for each in files if ".iothub" not in each.parts} == {"b"}
    assert [each.name for each in tmp_path.iterdir()] == ["uploads"]
