"""Persistent sessions: the subscriptions that outlive a connection with clean session 0.

azure-iot-device subscribes once, and never again after a reconnect. If the hub lost its
subscriptions, also in a restart, such a device would connect and receive nothing. A real hub keeps
them; here a small file does, if there is one.

A file or a row that is damaged is moved aside, with a warning. The hub neither uses nor deletes it.
"""

from __future__ import annotations

import itertools
import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emulator.hub.core import limits
from emulator.hub.core.printable import printable
from emulator.mqtt import topics
from emulator.mqtt.frame import TEXT_BYTES, ProtocolError

log = logging.getLogger(__name__)

# Topic filters, each with the QoS that was granted.
Subscriptions = dict[str, int]

# What SQLite says of a file that is not a database, that is damaged, or that has other columns. Its
# other errors are about the file system, and are not about the content (SQLite docs: result codes).
_DAMAGE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
_ASIDE = "damaged_sessions"  # the table of damaged rows
_NAMED = 5  # how many damaged sessions a warning names


class Sessions:
    """The persistent sessions, by client id.

    Args:
        file: where they are kept over a restart; None keeps them in memory.

    Raises:
        sqlite3.Error: the file can't be opened, or is not a database.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if file is None or getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                raise
            aside = _move_aside(file)
            log.warning(
                "The sessions in %s are damaged (%s). The file is now %s, and every device with "
                "clean session 0 must subscribe again: restart these devices.",
                printable(file),
                printable(error),
                printable(aside.name),
            )
            self._open()

    def _open(self) -> None:
        self._database = sqlite3.connect(self._file or ":memory:", isolation_level=None)
        try:
            self._sessions = self._load()
        except BaseException:
            self._database.close()
            raise

    def _load(self) -> dict[str, Subscriptions]:
        # A session is small and soon made again: no change is worth a wait for the disk, or a
        # journal file that is created and deleted.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = WAL")
        columns = "(client_id TEXT PRIMARY KEY, subscriptions TEXT)"
        self._database.execute(f"CREATE TABLE IF NOT EXISTS sessions {columns}")
        [[finding]] = self._database.execute("PRAGMA quick_check(1)")
        if finding != "ok":
            error = sqlite3.DatabaseError(finding)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        sessions: dict[str, Subscriptions] = {}
        damaged: list[tuple[int, bytes | None]] = []
        # Casts, because a column of SQLite holds values of any type, and text of any bytes.
        for row, client_id, text in self._database.execute(
            "SELECT rowid, CAST(client_id AS BLOB), CAST(subscriptions AS BLOB) FROM sessions"
        ):
            try:
                sessions[client_id.decode()] = _parse(text)
            except (ProtocolError, ValueError, AttributeError, TypeError, RecursionError):
                damaged.append((row, client_id))
        if damaged:
            self._set_aside(damaged)
        return sessions

    def _set_aside(self, damaged: Sequence[tuple[int, bytes | None]]) -> None:
        """Move rows to another table, where they stay."""
        rows = [(row,) for row, _ in damaged]
        columns = "client_id, subscriptions"
        execute, execute_each = self._database.execute, self._database.executemany
        execute(f"CREATE TABLE IF NOT EXISTS {_ASIDE} ({columns})")
        execute("BEGIN")
        execute_each(
            f"INSERT INTO {_ASIDE} SELECT {columns} FROM sessions WHERE rowid = ?",  # noqa: S608
            rows,
        )
        execute_each("DELETE FROM sessions WHERE rowid = ?", rows)
        execute("COMMIT")
        ids = [repr((client_id or b"").decode(errors="replace")) for _, client_id in damaged]
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        log.warning(
            "Sessions in %s are damaged: %s. They are in its table %s now. Restart these devices: "
            "they must subscribe again.",
            printable(self._file),
            printable(", ".join(ids[:_NAMED]) + more),
            printable(_ASIDE),
        )

    def find(self, client_id: str) -> Subscriptions | None:
        """Return a copy of a session's subscriptions, or None if it does not exist."""
        session = self._sessions.get(client_id)
        return None if session is None else dict(session)

    def keep(self, client_id: str, subscriptions: Subscriptions) -> None:
        """Store a session."""
        self._sessions[client_id] = dict(subscriptions)
        self._write(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?)", (client_id, json.dumps(subscriptions))
        )

    def forget(self, client_id: str) -> None:
        """Delete a session, if there is one."""
        if self._sessions.pop(client_id, None) is not None:
            self._write("DELETE FROM sessions WHERE client_id = ?", (client_id,))

    def _write(self, statement: str, values: Sequence[str]) -> None:
        """Change the file; a full disk must not refuse a device."""
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            log.warning(
                "Can't store the session of %s: %s. After a restart it will be as it was before. "
                "Free disk space, or choose another folder with --data-dir.",
                printable(values[0]),
                printable(error),
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _parse(text: Any) -> Subscriptions:
    """Parse the subscriptions of a session.

    Raises:
        ProtocolError, ValueError, AttributeError, TypeError, RecursionError: they are damaged.
    """
    subscriptions = json.loads(text)
    for name, qos in subscriptions.items():
        topics.check_filter(name)
        if "\0" in name or len(name.encode()) > TEXT_BYTES:
            raise ValueError(name)
        if type(qos) is not int or qos not in (0, 1):
            raise ValueError(qos)
    if len(subscriptions) > limits.MQTT_SUBSCRIPTIONS:
        raise ValueError(subscriptions)
    return dict(subscriptions)


def _move_aside(file: Path) -> Path:
    """Rename a database with its journal; return its new name, which no file had."""
    names = itertools.chain([".damaged"], (f".damaged-{number}" for number in itertools.count(2)))
    aside = next(path for name in names if not (path := Path(f"{file}{name}")).exists())
    for suffix in ("", "-wal", "-shm"):
        part = Path(f"{file}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside
