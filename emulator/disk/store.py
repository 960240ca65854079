"""The store that lasts: records in memory, and each commit in a file before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emulator.disk import rows
from emulator.disk.codec import encode, encode_key
from emulator.disk.file import OpenFile, open_file
from emulator.disk.loaded import LoadedStore
from emulator.hub.core.errors import ServiceUnavailable
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Deletion, Key, MemoryStore, Record

log = logging.getLogger(__name__)

_PUT = f"{rows.PUT} ON CONFLICT (kind, key) DO UPDATE SET data = excluded.data, sum = excluded.sum"
_DELETE = "DELETE FROM records WHERE kind = ? AND key = ?"
_TRIM = "DELETE FROM log WHERE number < ?"
# Old entries of the log are deleted together, after so many bytes of new ones.
_TRIM_BYTES = 64 * 1024

# A record that can wait is written so many seconds later; the next ones, if they are many, after
# a pause in which requests have their turn.
_DEFER_SECONDS, _DEFERRED, _NEXT_SECONDS = 1.0, 200, 0.05

# How long after a change the store looks whether its file is still there.
_LOOK_SECONDS = 1.0

_Statement = tuple[str, tuple[Any, ...]]


class DiskStore(LoadedStore):
    """A store in a SQLite file.

    It reads the file once, at its start. A record stays bytes in memory until it is asked for.

    Args:
        path: the file. It is created if it is missing.
        recover: whether a damaged file is moved aside, and replaced by a new one.
        file: the file, if it is open already.

    Raises:
        StartError: the file is damaged, newer, or in use; or it can't be read or written.
    """

    lasts = True

    def __init__(self, path: Path, *, recover: bool = False, file: OpenFile | None = None) -> None:
        super().__init__()
        self._path = path
        self._deferred: dict[tuple[type[Record], Key], Record] = {}
        self._due = 0  # so many of them, the oldest, are written without another wait
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._in_place = True  # whether the file was there at the last look
        self._works = True  # whether the last change was written
        self._appended = 0  # bytes of the log since old entries were deleted
        self._joined = file is not None  # whether a transaction is open: see `replaced`
        self._retired = False  # whether another store has taken the file over
        if file is None:
            file = open_file(path, self._read, recover=recover)
        else:
            self._read(file.database)
        self._file = file
        self._execute = file.database.execute

    def _read(self, database: sqlite3.Connection) -> None:
        self.load(rows.read_records(database), rows.read_log(database))

    @contextlib.contextmanager
    def replaced(self, snapshot: sqlite3.Connection | None) -> Iterator[DiskStore]:
        """Replace the content of the file, in one transaction, and this store by another one.

        The block receives the new store. If the block fails, nothing has changed. Afterwards, what
        this store writes is in its memory only.

        Args:
            snapshot: the new content; None empties the file.

        Raises:
            ServiceUnavailable: the file can't be written.
        """
        database = self._file.database
        try:
            database.execute("BEGIN")
            rows.replace(
                database,
                rows.read_records(snapshot) if snapshot else (),
                rows.read_log(snapshot) if snapshot else (),
            )
            fresh = DiskStore(self._path, file=self._file)
            yield fresh
            database.execute("COMMIT")
        except BaseException as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                self._report(error)
                raise ServiceUnavailable from error
            raise
        fresh._joined = False
        self._retire()

    def _retire(self) -> None:
        self._retired = True
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

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
            MemoryStore.commit(self, put=records, delete=deletions)

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
        statements: list[_Statement] = [(rows.APPEND, (number, data, zlib.crc32(data)))]
        trims = self._appended > _TRIM_BYTES or oldest == number  # which is all of the log
        if trims:
            statements.append((_TRIM, (oldest,)))
        self._write(statements)
        self._appended = (0 if trims else self._appended) + len(data)

    def close(self) -> None:
        """See `Store.close`."""
        if self._retired:
            return
        try:
            self._write([*map(_put, self._deferred.values())])
        except ServiceUnavailable:
            pass  # it was logged
        finally:
            self._retire()
            self._check_place()
            self._file.close()

    def _write_deferred(self) -> None:
        """Write some of what was deferred: all of it could keep requests waiting.

        What is deferred again meanwhile waits as long as at first: a record that changes all the
        time is written once in a while.
        """
        self._timer, seconds = None, _DEFER_SECONDS
        self._due = self._due or len(self._deferred)
        some = dict(itertools.islice(self._deferred.items(), min(self._due, _DEFERRED)))
        with contextlib.suppress(ServiceUnavailable):  # it was logged
            self._write([*map(_put, some.values())])
            for each in some:
                del self._deferred[each]
            self._due = max(self._due - _DEFERRED, 0)
            if self._due:
                seconds = _NEXT_SECONDS
        if self._deferred:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._write_deferred)

    def _write(self, statements: list[_Statement]) -> None:
        """Carry out statements in one transaction."""
        if not statements or self._retired:
            return
        execute, alone = self._execute, len(statements) == 1 or self._joined
        try:
            if not alone:
                execute("BEGIN")
            for statement, values in statements:
                execute(statement, values)
            if not alone:
                execute("COMMIT")
        except sqlite3.Error as error:
            if self._file.database.in_transaction:
                execute("ROLLBACK")
            self._report(error)
            raise ServiceUnavailable from error
        if not self._works:
            self._works = True
            log.warning("%s can be written again.", printable(self._path))
        if self._look is None:
            with contextlib.suppress(RuntimeError):  # without an event loop, at the end
                later = asyncio.get_running_loop().call_later
                self._look = later(_LOOK_SECONDS, self._check_place)

    def _check_place(self) -> None:
        """Log once that the file is missing at its path: writing to it still works."""
        self._look = None
        if self._in_place and not self._file.in_place:
            self._in_place = False
            log.warning(
                "%s was removed or replaced while the hub runs. The state of the hub ends with it. "
                "To keep it, take a snapshot now, put it there, and start the hub again.",
                printable(self._path),
            )

    def _report(self, error: sqlite3.Error) -> None:
        """Log the first of several errors."""
        if self._works:
            self._works = False
            log.warning(
                "Can't write %s: %s. Requests that change the hub are refused until it can be "
                "written: free disk space.",
                printable(self._path),
                printable(error),
            )


def _put(record: Record) -> _Statement:
    kind, key, data = type(record).__name__, encode_key(record.key), encode(record)
    return _PUT, (kind, key, data, rows.checksum(kind, key, data))
