"""The file of a hub: opened by one emulator at a time, checked, and never overwritten.

The file is a SQLite database with a write-ahead log. A commit is in the system's cache when it
returns: the end of the process loses nothing. The disk is synchronised now and then, so a loss of
power can lose the last commits, and damages nothing (SQLite docs: PRAGMA synchronous).
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from emulator.errors import StartError
from emulator.hub.core.printable import printable
from emulator.net.files import PRIVATE

VERSION = 1
"""The version of the schema, in `user_version`."""

_APPLICATION_ID = 0x494F5448  # "IOTH": SQLite keeps it in the header of the file

_SCHEMA = """
BEGIN;
CREATE TABLE records (
    place INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL,
    sum INTEGER NOT NULL, UNIQUE (kind, key)
);
CREATE TABLE log (number INTEGER PRIMARY KEY, data BLOB NOT NULL, sum INTEGER NOT NULL);
PRAGMA application_id = {application_id};
PRAGMA user_version = {version};
COMMIT;
"""

# How to make the next version of the schema out of each older one: in one transaction.
MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {}

# What SQLite says of a file that is not a database, or that is damaged, such as one whose tables
# have other columns. Its other errors are about the file system (SQLite docs: result codes).
_DAMAGE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)

# A commit writes whole pages: of a new file they are small, because most records are.
_PAGE_BYTES = 2048
# Pages until the log is copied into the file: 16 MB, so that the disk is synchronised rarely.
_CHECKPOINT_PAGES = 8_000


class Damaged(Exception):  # noqa: N818
    """The content of the file is not what was written."""

    def __init__(self, finding: str) -> None:
        # SQLite repeats what is in the file.
        super().__init__(printable(" ".join(finding.split())))


class Foreign(Exception):  # noqa: N818
    """The file is of another program."""


class Newer(Exception):  # noqa: N818
    """The file is of a newer emulator."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class OpenFile(NamedTuple):
    """A file that is open, with its lock."""

    path: Path
    database: sqlite3.Connection
    lock: FileLock
    number: tuple[int, int]
    """What the file system calls it; another file at its path has another number."""

    @property
    def in_place(self) -> bool:
        """Whether it is still at its path: a user can have removed its folder."""
        try:
            return _file_number(self.path) == self.number
        except OSError:
            return False

    def close(self) -> None:
        """Close the file, and let another emulator use it."""
        self.database.close()
        self.lock.release()


def open_file(
    path: Path, read: Callable[[sqlite3.Connection], None], *, recover: bool = False
) -> OpenFile:
    """Open the file of a hub, or create it.

    Args:
        path: the file.
        read: reads the content. It raises `Damaged`.
        recover: whether a damaged file is moved aside, and replaced by a new one.

    Raises:
        StartError: the file is damaged, newer, or in use; or it can't be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", 0, PRIVATE)
        lock.acquire()
    except Timeout:
        raise StartError(
            f"{path} is in use by another emulator. Stop it, or use another folder: --data-dir "
            "DIR. Or keep nothing: --in-memory."
        ) from None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        try:
            return _opened(path, read, lock)
        except Damaged as error:
            if not recover:
                raise StartError(
                    f"{path} is damaged ({error}). Put a copy in its place, or use --recover: it "
                    "moves the file aside, and begins a new hub."
                ) from error
            move_aside(path, "damaged")
            return _opened(path, read, lock)
    except Foreign as error:
        lock.release()
        raise StartError(
            f"{path} belongs to another program. Move it, or use another folder: --data-dir DIR."
        ) from error
    except Newer as error:
        lock.release()
        raise StartError(
            f"{path} is from a newer emulator: its version is {error.version}, and this emulator "
            f"knows {VERSION}. Update the emulator, or use another folder: --data-dir DIR."
        ) from error
    except BaseException:
        lock.release()
        raise


def move_aside(path: Path, why: str) -> Path:
    """Rename a file with its journal, and return its new name, which no file had."""
    names = itertools.chain([f".{why}"], (f".{why}-{number}" for number in itertools.count(2)))
    aside = next(each for name in names if not (each := Path(f"{path}{name}")).exists())
    for suffix in ("", "-wal", "-shm"):
        part = Path(f"{path}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside


def damage(error: BaseException) -> Damaged | None:
    """Return what an error says about the content of a file; None if it is about something else."""
    if isinstance(error, Damaged):
        return error
    if isinstance(error, UnicodeDecodeError):  # in a text of the file, or in an error of SQLite
        return Damaged("a text is not UTF-8")
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own: its text can have a key
        return Damaged("a text is not UTF-8")
    return Damaged(str(error)) if code & 0xFF in _DAMAGE else None


def _opened(path: Path, read: Callable[[sqlite3.Connection], None], lock: FileLock) -> OpenFile:
    return OpenFile(path, _open(path, read), lock, _file_number(path))


def _file_number(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _open(path: Path, read: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    database = None
    try:
        _make_private(path)
        database = sqlite3.connect(path, isolation_level=None, timeout=0)
        # No other process reads it: then the index of the log is in memory.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = check(database)
        if not version:
            database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        # Some builds overwrite all that is deleted: for the log, that takes as long as the writing.
        # What is in a page with other rows, such as a key, is still overwritten.
        database.execute("PRAGMA secure_delete = FAST")
        database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if not version:
            create(database)
        elif version < VERSION:
            _copy(database, Path(f"{path}.version-{version}"))
            migrate(database)
        read(database)
    except BaseException as error:
        if database is not None:
            database.close()
        if (found := damage(error)) is not None:
            raise found from error
        if isinstance(error, sqlite3.Error | OSError):
            raise _unusable(path, error) from error
        raise
    return database


def _make_private(path: Path) -> None:
    """Create a file that only its owner can read: it has keys. Its journals get its mode."""
    path.touch(PRIVATE)
    with contextlib.suppress(OSError):  # a file system without modes
        path.chmod(path.stat().st_mode & stat.S_IRWXU)


def _number(database: sqlite3.Connection, pragma: str) -> int:
    [[number]] = database.execute(f"PRAGMA {pragma}")
    return int(number)


def check(database: sqlite3.Connection) -> int:
    """Check that a file is ours, or empty, and sound; return its version. This changes nothing.

    Raises:
        Foreign, Newer, Damaged, sqlite3.Error
    """
    version = _number(database, "user_version")
    [[tables]] = database.execute("SELECT count(*) FROM sqlite_schema")
    if tables and _number(database, "application_id") != _APPLICATION_ID:
        raise Foreign
    if version > VERSION:
        raise Newer(version)
    [[finding]] = database.execute("PRAGMA quick_check(1)")
    if finding != "ok":
        raise Damaged(finding)
    return version


def create(database: sqlite3.Connection) -> None:
    """Create the tables of a new file."""
    database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    database.executescript(_SCHEMA.format(application_id=_APPLICATION_ID, version=VERSION))


def migrate(database: sqlite3.Connection) -> None:
    """Make the newest version of the tables out of an older one."""
    for each in range(_number(database, "user_version"), VERSION):
        database.execute("BEGIN")
        MIGRATIONS[each](database)
        database.execute(f"PRAGMA user_version = {each + 1}")
        database.execute("COMMIT")


def _copy(database: sqlite3.Connection, copy: Path) -> None:
    copy.unlink(missing_ok=True)  # of a migration that did not end
    _make_private(copy)
    database.execute("VACUUM INTO ?", (str(copy),))


def _unusable(path: Path, error: Exception) -> StartError:
    return StartError(
        f"Can't keep the hub in {path}: {error}. Free disk space, allow this user to write there, "
        "or use another folder: --data-dir DIR."
    )
