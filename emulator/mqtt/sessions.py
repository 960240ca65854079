"""Persistent sessions: the subscriptions that outlive a connection with clean session 0.

azure-iot-device subscribes once, and never again after a reconnect. If the hub lost its
subscriptions, also in a restart, such a device would connect and receive nothing. A real hub keeps
them; here the store of the hub has them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Key, Store
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.mqtt import topics
from emulator.mqtt.frame import TEXT_BYTES, ProtocolError

log = logging.getLogger(__name__)

# Topic filters, each with the QoS that was granted.
Subscriptions = dict[str, int]


class Session(Struct, frozen=True):
    """The session of a client that outlives its connection."""

    client_id: str
    subscriptions: Subscriptions

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return (self.client_id,)


class Sessions:
    """The persistent sessions, by client id."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, client_id: str) -> Subscriptions | None:
        """Return a copy of a session's subscriptions, or None if it does not exist."""
        session = self._store.get(Session, (client_id,))
        return None if session is None else dict(session.subscriptions)

    def keep(self, client_id: str, subscriptions: Subscriptions) -> None:
        """Store a session."""
        self._store.commit(put=(Session(client_id, dict(subscriptions)),))

    def forget(self, client_id: str) -> None:
        """Delete a session, if there is one."""
        if self._store.get(Session, (client_id,)) is not None:
            self._store.commit(delete=((Session, (client_id,)),))

    def forget_unknown(self) -> None:
        """Delete the sessions of devices that an earlier run has deleted while it was killed."""
        gone = [
            (Session, each.key)
            for each in self._store.scan(Session)
            if self._store.get(Identity, IdentityKey(*each.client_id.split("/", 1))) is None
        ]
        self._store.commit(delete=gone)

    def adopt(self, file: Path) -> None:
        """Take the sessions out of the file in which an older emulator kept them.

        The file stays, under another name. A session that is damaged is left out.
        """
        try:
            with closing(sqlite3.connect(file)) as database:
                rows = database.execute(
                    # Casts, because a column holds values of any type, and text of any bytes.
                    "SELECT CAST(client_id AS BLOB), CAST(subscriptions AS BLOB) FROM sessions"
                ).fetchall()
            found, damaged = [], 0
            for client_id, text in rows:
                try:
                    found.append(Session(client_id.decode(), _parse(text)))
                except (ProtocolError, ValueError, AttributeError, TypeError, RecursionError):
                    damaged += 1
            self._store.commit(put=found)
            file.rename(f"{file}.migrated")
        except (sqlite3.Error, OSError) as error:
            what = str(error)
        else:
            if not damaged:
                return
            what = f"{damaged} of {len(rows)} are damaged"
        log.warning(
            "Can't take all sessions of %s: %s. Devices with clean session 0 must subscribe again: "
            "restart these devices.",
            printable(file),
            printable(what),
        )


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
