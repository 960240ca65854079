"""A snapshot of a hub, in memory and on disk alike: the bytes of a file as `DiskStore` has it."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from emulator.disk import rows
from emulator.disk.codec import encode, encode_key
from emulator.disk.file import VERSION, Foreign, Newer, check, create, damage, migrate
from emulator.disk.loaded import LoadedStore
from emulator.disk.rows import LogRow, RecordRow
from emulator.errors import SnapshotError
from emulator.hub.core.store import MemoryStore
from emulator.net import files

# Where a file says whether it has a write-ahead log; this value says that it has none (SQLite docs:
# file format). A snapshot can be a file that a hub has used, and a database in memory has none.
_JOURNAL, _NO_WAL = slice(18, 20), b"\1\1"


def pack(store: MemoryStore, log: Iterable[tuple[int, object]]) -> bytes:
    """Return a snapshot of a store, and of the log of its hub."""
    with closing(_in_memory()) as database:
        create(database)
        database.execute("BEGIN")
        rows.replace(database, _record_rows(store), _log_rows(log))
        database.execute("COMMIT")
        return database.serialize()


def unpack(snapshot: bytes) -> sqlite3.Connection:
    """Open a snapshot, and check all of it.

    Raises:
        SnapshotError: it is damaged, newer, or not a snapshot. The text says what to do.
    """
    database = _in_memory()
    try:
        content = bytearray(snapshot)
        content[_JOURNAL] = _NO_WAL
        database.deserialize(bytes(content))
        if not check(database):
            raise Foreign
        migrate(database)
        LoadedStore().load(rows.read_records(database), rows.read_log(database))
    except BaseException as error:
        database.close()
        if isinstance(error, Newer):
            raise SnapshotError(
                f"The snapshot is from a newer emulator: its version is {error.version}, and this "
                f"emulator knows {VERSION}. Update the emulator."
            ) from error
        if isinstance(error, Foreign) or _is_no_database(error):
            raise SnapshotError(
                "This is not a snapshot of a hub. Use one that the emulator wrote."
            ) from error
        if (found := damage(error)) is not None:
            raise SnapshotError(f"The snapshot is damaged ({found}). Use another one.") from error
        raise
    return database


def load(snapshot: sqlite3.Connection | None) -> MemoryStore:
    """Return a store in memory with the content of a snapshot; None is an empty store."""
    if snapshot is None:
        return MemoryStore()
    store = LoadedStore()
    store.load(rows.read_records(snapshot), rows.read_log(snapshot))
    return store


def write(file: Path, snapshot: bytes) -> None:
    """Write a snapshot into a file: a reader gets the whole old file, or the whole new one.

    Raises:
        SnapshotError: it can't be written.
    """
    try:
        files.write_named(file, snapshot)
    except OSError as error:
        raise SnapshotError(
            f"Can't write {file}: {error.strerror}. Use a file in a folder that this user can "
            "write to."
        ) from error


def read(file: Path) -> bytes:
    """Read the file of a snapshot.

    Raises:
        SnapshotError: it can't be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise SnapshotError(
            f"Can't read {file}: {error.strerror}. Use the file of a snapshot."
        ) from error


def _in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def _is_no_database(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_NOTADB or isinstance(error, sqlite3.OperationalError)


def _record_rows(store: MemoryStore) -> Iterator[RecordRow]:
    for kind, key, record in store.all():
        data = record if type(record) is bytes else encode(record)
        text = encode_key(key)
        yield kind, text, data, rows.checksum(kind, text, data)


def _log_rows(log: Iterable[tuple[int, object]]) -> Iterator[LogRow]:
    for number, entry in log:
        data = encode(entry)
        yield number, data, zlib.crc32(data)
