"""The rows of a file, each with a checksum: SQLite notices no change within one."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator

from emulator.disk.file import Damaged

# Kind, key, data, checksum; and number, data, checksum.
RecordRow = tuple[str, str, bytes, int]
LogRow = tuple[int, bytes, int]

RECORDS = "SELECT kind, key, data, sum FROM records ORDER BY place"
LOG = "SELECT number, data, sum FROM log ORDER BY number"
PUT = "INSERT INTO records (kind, key, data, sum) VALUES (?, ?, ?, ?)"
APPEND = "INSERT OR REPLACE INTO log (number, data, sum) VALUES (?, ?, ?)"


def checksum(kind: str, key: str, data: bytes) -> int:
    """Return the checksum of a record."""
    return zlib.crc32(data, zlib.crc32(f"{kind} {key}".encode()))


def read_records(database: sqlite3.Connection) -> Iterator[RecordRow]:
    """Return the records of a file, the oldest first.

    Raises:
        Damaged: a row is not what was written.
        sqlite3.Error
    """
    for row in database.execute(RECORDS):
        kind, key, data, total = row
        if type(data) is not bytes or checksum(kind, key, data) != total:
            raise Damaged(f"a record of the kind {kind} has changed")
        yield row


def read_log(database: sqlite3.Connection) -> Iterator[LogRow]:
    """Return the entries of the log of a file; see `read_records`."""
    for row in database.execute(LOG):
        if type(row[1]) is not bytes or zlib.crc32(row[1]) != row[2]:
            raise Damaged(f"entry {row[0]} of the log has changed")
        yield row


def replace(
    database: sqlite3.Connection, records: Iterable[RecordRow], log: Iterable[LogRow]
) -> None:
    """Put rows in the place of all that a file has."""
    database.execute("DELETE FROM records")
    database.execute("DELETE FROM log")
    database.executemany(PUT, records)
    database.executemany(APPEND, log)
