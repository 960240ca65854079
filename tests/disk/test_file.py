"""The file of a hub: damaged, newer, older, of another program, in use. It is never overwritten."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Struct

from emulator.disk import file as files
from emulator.disk import snapshot
from emulator.disk.store import DiskStore
from emulator.errors import SnapshotError, StartError
from emulator.hub.core.store import Key
from tests.support import small_files


class Note(Struct, frozen=True):
    key: Key
    text: str = ""


NOTES = [Note((f"note {number}",), "text " * 20) for number in range(200)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "hub.sqlite"
    with closing(DiskStore(path)) as store:
        store.commit(put=NOTES)
    return path


def damage_a_text(path: Path) -> None:
    content = path.read_bytes()
    place = content.rindex(b"text text")
    path.write_bytes(content[:place] + b"TEXT" + content[place + 4 :])


def damage_a_page(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:2048] + b"\x7f" * 2048 + content[4096:])


def replacing(old: bytes, new: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))


DAMAGE = {
    "a kind": replacing(b'Note["note 7"', b'Mote["note 7"'),
    "a text that is not UTF-8": replacing(b'"note 7"', b'"note\xff7"'),
    "the schema, not UTF-8": replacing(b"CREATE TABLE records", b"CREATE TABLE rec\xffrds"),
    "the schema, in several lines": replacing(b"CREATE TABLE records", b'CREATE TABLE "ecords'),
    "a column": replacing(b"sum INTEGER", b"sun INTEGER"),
    "a control character": replacing(b"CREATE TABLE records", b"CREATE TABLE \x1becords"),
    "a text": damage_a_text,
    "a page": damage_a_page,
    "the header": lambda path: path.write_bytes(b"x" * 100 + path.read_bytes()[100:]),
    "the end": lambda path: os.truncate(path, path.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_named_and_moved_aside_on_request(
    path: Path, damage: object, tmp_path: Path
) -> None:
    assert callable(damage)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StartError) as error:
        DiskStore(path)
    assert str(path) in str(error.value)
    assert "--recover" in str(error.value)
    assert str(error.value).isprintable()
    assert path.read_bytes() == before
    with pytest.raises(SnapshotError, match=r"^The snapshot is damaged|^This is not a snapshot"):
        snapshot.unpack(before)
    with closing(DiskStore(path, recover=True)) as store:
        assert store.scan(Note) == []
    assert Path(f"{path}.damaged").read_bytes() == before


def test_recover_keeps_a_file_that_is_sound(path: Path, tmp_path: Path) -> None:
    with closing(DiskStore(path, recover=True)) as store:
        assert store.scan(Note) == NOTES
    assert not Path(f"{path}.damaged").exists()


def test_each_damaged_file_has_its_own_name(path: Path) -> None:
    for name in (".damaged", ".damaged-2", ".damaged-3"):
        path.write_bytes(name.encode() * 1000)
        DiskStore(path, recover=True).close()
        assert Path(f"{path}{name}").read_bytes() == name.encode() * 1000


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)


@pytest.mark.parametrize("recover", [False, True])
def test_a_newer_file_is_refused(path: Path, recover: bool) -> None:
    change(path, f"PRAGMA user_version = {files.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StartError, match=r"newer emulator.*Update.*--data-dir DIR"):
        DiskStore(path, recover=recover)
    assert path.read_bytes() == before


@pytest.mark.parametrize("recover", [False, True])
def test_a_file_of_another_program_is_refused(tmp_path: Path, recover: bool) -> None:
    path = tmp_path / "other.sqlite"
    change(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StartError, match="another program"):
        DiskStore(path, recover=recover)
    assert path.read_bytes() == before


def test_a_file_in_use_is_refused(path: Path) -> None:
    says = r"^\S+ is in use by another emulator\..* --data-dir DIR.* --in-memory\.$"
    with closing(DiskStore(path)), pytest.raises(StartError, match=says):
        DiskStore(path, recover=True)
    DiskStore(path).close()


def test_an_older_file_is_migrated_and_a_copy_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def migrate(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM records WHERE key <> '[\"note 7\"]'")

    monkeypatch.setattr(files, "VERSION", 2)
    monkeypatch.setattr(files, "MIGRATIONS", {1: migrate})
    with closing(DiskStore(path)) as store:
        assert store.scan(Note) == [NOTES[7]]
    with closing(DiskStore(path)) as store:  # once
        assert store.scan(Note) == [NOTES[7]]
    monkeypatch.undo()
    with closing(DiskStore(Path(f"{path}.version-1"))) as store:
        assert store.scan(Note) == NOTES


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """Have no more rights than another user: root can write anywhere."""
    if os.name != "posix":
        pytest.skip("needs the modes of POSIX")
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """A folder of any user, outside the folders of pytest, which other users can't enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_folder_that_is_read_only_is_named(theirs: Path, as_a_user: None) -> None:
    (folder := theirs / "folder").mkdir(0o500)
    for path in (folder / "hub.sqlite", folder / "another" / "hub.sqlite"):
        with pytest.raises(StartError, match=r"^Can't keep the hub in .*--data-dir DIR\.$"):
            DiskStore(path)
    assert [*folder.iterdir()] == []


def test_a_file_that_is_read_only_is_named(theirs: Path, as_a_user: None) -> None:
    path = theirs / "hub.sqlite"
    with closing(DiskStore(path)) as store:
        store.commit(put=NOTES)
    path.chmod(0o400)
    before = path.read_bytes()
    with pytest.raises(StartError, match=r"^Can't keep the hub in .*--data-dir DIR\.$"):
        DiskStore(path, recover=True)
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match=r"^Can't keep the hub in .*--data-dir DIR\.$"):
        DiskStore(tmp_path / "file" / "hub.sqlite")


@pytest.mark.skipif(os.name != "posix", reason="needs the limits of POSIX")
def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path) -> None:
    with small_files(1000), pytest.raises(StartError, match=r"^Can't keep .*Free disk space"):
        DiskStore(tmp_path / "hub.sqlite")
    DiskStore(tmp_path / "hub.sqlite").close()


@pytest.mark.skipif(os.name != "posix", reason="needs the modes of POSIX")
def test_only_its_owner_can_read_a_file(path: Path) -> None:
    path.chmod(0o644)
    with closing(DiskStore(path)) as store:
        store.commit(put=NOTES)
        files = [*path.parent.iterdir()]
        assert {f"{path.name}{end}" for end in ("", "-wal", ".lock")} == {f.name for f in files}
        assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
