"""The store that lasts: records in memory, and each commit in a file before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from emulator.disk.codec import decode, decode_key, encode, encode_key
from emulator.disk.file import Damaged, open_file
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Deletion, Key, MemoryStore, R, Record, T

log = logging.getLogger(__name__)

_PUT = (
    "INSERT INTO records (kind, key, data, sum) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (kind, key) DO UPDATE SET data = excluded.data, sum = excluded.sum"
)
_DELETE = "DELETE FROM records WHERE kind = ? AND key = ?"
_APPEND = "INSERT INTO log (number, data, sum) VALUES (?, ?, ?)"
_TRIM = "DELETE FROM log WHERE number < ?"

# A record that can wait is written so many seconds later; the next ones, if they are many, after
# a pause in which requests have their turn.
_DEFER_SECONDS, _DEFERRED, _NEXT_SECONDS = 1.0, 200, 0.05

_Statement = tuple[str, tuple[Any, ...]]


class _Kinds(dict[type[Record], dict[Key, Any]]):
    """The records of each kind; those of a kind that was not asked for are found by its name."""

    def __init__(self, rows: dict[str, dict[Key, Any]]) -> None:
        self._rows = rows
        self._kinds: dict[str, type[Record]] = {}

    def __missing__(self, kind: type[Record]) -> dict[Key, Any]:
        if self._kinds.setdefault(kind.__name__, kind) is not kind:
            raise TypeError(f"Two kinds of records have the name {kind.__name__}")
        self[kind] = found = self._rows.pop(kind.__name__, {})
        return found


class DiskStore(MemoryStore):
    """A store in a SQLite file.

    It reads the file once, at its start. A record stays bytes in memory until it is asked for.

    Args:
        path: the file. It is created if it is missing.
        recover: whether a damaged file is moved aside, and replaced by a new one.

    Raises:
        StartError: the file is damaged, newer, or in use; or it can't be read or written.
    """

    def __init__(self, path: Path, *, recover: bool = False) -> None:
        super().__init__()
        self._path = path
        self._deferred: dict[tuple[type[Record], Key], Record] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._works = True  # whether the last change was written
        self._decoded: set[type[Record]] = set()
        self._oldest = 0  # the log has no entry below this number, as far as is known
        self._file = open_file(path, self._read, recover=recover)
        self._execute = self._file.database.execute

    def _read(self, database: sqlite3.Connection) -> None:
        rows: dict[str, dict[Key, Any]] = {}
        crc32 = zlib.crc32
        try:
            for kind, key, data, total in database.execute(
                "SELECT kind, key, data, sum FROM records ORDER BY place"
            ):
                if crc32(data) != total:
                    raise Damaged(f"a record of the kind {kind} has changed")
                records = rows.get(kind)
                if records is None:
                    records = rows[kind] = {}
                records[decode_key(key)] = data
            for number, data, total in database.execute("SELECT number, data, sum FROM log"):
                if crc32(data) != total:
                    raise Damaged(f"entry {number} of the log has changed")
        except (TypeError, msgspec.DecodeError) as error:
            raise Damaged(str(error)) from error
        self._records = cast("Any", _Kinds(rows))

    def get(self, kind: type[R], key: Key) -> R | None:
        """See `Store.get`."""
        records = self._records[kind]
        record: Any = records.get(key)
        if type(record) is bytes:
            record = records[key] = decode(kind, record)
        return cast("R | None", record)

    def scan(self, kind: type[R], prefix: Key = ()) -> Sequence[R]:
        """See `Store.scan`."""
        if kind not in self._decoded:
            self._decoded.add(kind)
            for key in self._records[kind]:
                self.get(kind, key)
        return super().scan(kind, prefix)

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        """See `Store.commit`."""
        deletions, records = tuple(delete), tuple(put)
        statements: list[_Statement] = [
            (_DELETE, (kind.__name__, encode_key(key))) for kind, key in deletions
        ]
        statements += map(_put, records)
        if statements:
            self._write(statements)
            if self._deferred:
                for each in (*deletions, *((type(record), record.key) for record in records)):
                    self._deferred.pop(each, None)
            super().commit(put=records, delete=deletions)

    def defer(self, record: Record) -> None:
        """See `Store.defer`."""
        super().defer(record)
        self._deferred[type(record), record.key] = record
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # without an event loop, at the end
                later = asyncio.get_running_loop().call_later
                self._timer = later(_DEFER_SECONDS, self._write_deferred)

    def append(self, number: int, entry: object, *, oldest: int) -> None:
        """See `Store.append`."""
        data = encode(entry)
        statements: list[_Statement] = [(_APPEND, (number, data, zlib.crc32(data)))]
        if oldest > self._oldest:
            statements.append((_TRIM, (oldest,)))
        self._write(statements)
        self._oldest = oldest

    def entries(self, kind: type[T]) -> Iterator[T]:
        """See `Store.entries`."""
        rows = self._execute("SELECT data FROM log ORDER BY number")
        return (decode(kind, data) for (data,) in rows)

    def soon(self, write: Callable[[], None]) -> None:
        """See `Store.soon`: one transaction for all that comes in this turn of the event loop."""
        asyncio.get_running_loop().call_soon(write)

    def close(self) -> None:
        """See `Store.close`."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._write([*map(_put, self._deferred.values())])
        except ServiceUnavailable:
            pass  # it was logged
        finally:
            self._file.close()

    def _write_deferred(self) -> None:
        """Write some of what was deferred: all of it could keep requests waiting."""
        self._timer, seconds = None, _DEFER_SECONDS
        some = dict(itertools.islice(self._deferred.items(), _DEFERRED))
        with contextlib.suppress(ServiceUnavailable):  # it was logged
            self._write([*map(_put, some.values())])
            for each in some:
                del self._deferred[each]
            seconds = _NEXT_SECONDS
        if self._deferred:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._write_deferred)

    def _write(self, statements: list[_Statement]) -> None:
        """Carry out statements in one transaction."""
        execute = self._execute
        try:
            if len(statements) == 1:
                execute(*statements[0])
            elif statements:
                execute("BEGIN")
                for statement, values in statements:
                    execute(statement, values)
                execute("COMMIT")
        except sqlite3.Error as error:
            if self._file.database.in_transaction:
                execute("ROLLBACK")
            if self._works:
                self._works = False
                log.warning(
                    "Can't write %s: %s. Requests that change the hub are refused until it can be "
                    "written: free disk space.",
                    printable(self._path),
                    printable(error),
                )
            raise ServiceUnavailable from error
        if statements and not self._works:
            self._works = True
            log.warning("%s can be written again.", printable(self._path))


def _put(record: Record) -> _Statement:
    key, data = encode_key(record.key), encode(record)
    return _PUT, (type(record).__name__, key, data, zlib.crc32(data))
