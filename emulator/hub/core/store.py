"""Where the hub keeps its state: records of any kind, each under a key of its own.

A change is one `commit`: all of it happens, or nothing. The store knows records, not features: a
new kind of record edits no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, cast

# Names a record among those of its kind. A key is not empty, and its first part is a string.
Key = tuple[str | None, ...]


class Record(Protocol):
    """What a store keeps. A record is frozen: a reader can hold it while a writer replaces it."""

    @property
    def key(self) -> Key:
        """The key of the record, unique among the records of its class."""


R = TypeVar("R", bound=Record)

# A record to delete: its class and its key.
Deletion = tuple[type[Record], Key]


class Store(Protocol):
    """Records by kind and key; the kind is the record's class."""

    def get(self, kind: type[R], key: Key) -> R | None:
        """Return a record, or None if there is no such key."""

    def scan(self, kind: type[R], prefix: Key = ()) -> Sequence[R]:
        """Return the records whose keys begin with `prefix`, the oldest first."""

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        """Delete records, then write records: all or nothing.

        A record that replaces another one keeps its place in a scan.
        """


class MemoryStore:
    """A store that ends with the process."""

    def __init__(self) -> None:
        self._records: dict[type[Record], dict[Key, Record]] = {}
        # The same records by the first part of their keys, for the kinds that were asked for so.
        self._families: dict[type[Record], dict[str | None, dict[Key, Record]]] = {}

    def get(self, kind: type[R], key: Key) -> R | None:
        """See `Store.get`."""
        records = self._records.get(kind)
        return None if records is None else cast("R | None", records.get(key))

    def scan(self, kind: type[R], prefix: Key = ()) -> Sequence[R]:
        """See `Store.scan`."""
        if not prefix:
            return cast("list[R]", list(self._records.get(kind, {}).values()))
        family = self._family(kind).get(prefix[0], {})
        length = len(prefix)
        return cast("list[R]", [each for key, each in family.items() if key[:length] == prefix])

    def _family(self, kind: type[Record]) -> dict[str | None, dict[Key, Record]]:
        if kind not in self._families:
            families = self._families[kind] = {}
            for key, record in self._records.get(kind, {}).items():
                families.setdefault(key[0], {})[key] = record
        return self._families[kind]

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        """See `Store.commit`."""
        # Both are read to their ends first: only that can fail.
        deletions = tuple(delete)
        records = [(type(record), record.key, record) for record in put]
        for kind, key in deletions:
            self._records.get(kind, {}).pop(key, None)
            if kind in self._families:
                family = self._families[kind].get(key[0], {})
                family.pop(key, None)
                if not family:
                    self._families[kind].pop(key[0], None)
        for kind, key, record in records:
            self._records.setdefault(kind, {})[key] = record
            if kind in self._families:
                self._families[kind].setdefault(key[0], {})[key] = record
