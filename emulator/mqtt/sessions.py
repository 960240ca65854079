"""Persistent sessions: the subscriptions that outlive a connection with clean session 0.

azure-iot-device subscribes once, and never again after a reconnect. If the hub lost its
subscriptions, also in a restart, such a device would connect and receive nothing. A real hub keeps
them; here a small file does, if there is one.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

# Topic filters, each with the QoS that was granted.
Subscriptions = dict[str, int]


class Sessions:
    """The persistent sessions, by client id.

    Args:
        file: where they are kept over a restart; None keeps them in memory.

    Raises:
        sqlite3.Error: the file can't be opened, or is not a database.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._database = sqlite3.connect(file or ":memory:", isolation_level=None)
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
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS sessions (client_id TEXT PRIMARY KEY, subscriptions TEXT)"
        )
        return {
            client_id: json.loads(subscriptions)
            for client_id, subscriptions in self._database.execute("SELECT * FROM sessions")
        }

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
                f"Can't store the session of {values[0]}: {error}. After a restart it will be as "
                "it was before. Free disk space, or choose another folder with --data-dir."
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()
