"""The store of a hub: its state as records, each with a kind and a key.

A change of state is one `commit`, which writes everything or nothing. The store knows no feature,
so a new kind of record needs no change here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

# The key of a record among the records of its kind; not empty, and its first part is a string.
Key = tuple[str | None, ...]


class Record(Protocol):
    """A frozen object in a store: a reader can keep it while a writer replaces it."""

    @property
    def key(self) -> Key:
        """The key of the record, unique among the records of its class."""


R = TypeVar("R", bound=Record)
T = TypeVar("T")

# A record to delete: its class and its key.
Deletion = tuple[type[Record], Key]


class Store(Protocol):
    """Records by kind and key; the kind of a record is its class."""

    lasts: bool
    """Whether it outlives the process. Only the writes of such a store can fail."""

    def get(self, kind: type[R], key: Key) -> R | None:
        """Return a record, or None if the key is unknown."""

    def scan(self, kind: type[R], prefix: Key = ()) -> Sequence[R]:
        """Return the records whose keys begin with `prefix`, the oldest first."""

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        """Delete records, then write records: all or nothing.

        A record that replaces another one keeps its place in a scan.

        Raises:
            ServiceUnavailable: the store can't write; nothing has changed.
        """

    def defer(self, record: Record) -> None:
        """Write a record that can wait: it is there at once, and lasts with a later commit."""

    def append(self, number: int, entry: object, *, oldest: int) -> None:
        """Add an entry to the log, and delete the entries below number `oldest`.

        The store holds no entry in memory: `entries` is for the start.

        Raises:
            ServiceUnavailable: the store can't write; nothing has changed.
        """

    def entries(self, kind: type[T]) -> Iterator[T]:
        """Return the entries that an earlier run has left in the log; all are of one kind."""

    def soon(self, write: Callable[[], None]) -> None:
        """Call a function that writes what has come together in this turn of the event loop."""

    def close(self) -> None:
        """Write what was deferred, and end the use of the store."""


class MemoryStore:
    """A store that ends with the process."""

    lasts = False

    def __init__(self) -> None:
        self._records: defaultdict[type[Record], dict[Key, Any]] = defaultdict(dict)
        # The same records by the first part of their keys, for the kinds that were scanned by it.
        self._families: dict[type[Record], dict[str | None, dict[Key, Record]]] = {}

    def get(self, kind: type[R], key: Key) -> R | None:
        """See `Store.get`."""
        record: R | None = self._records[kind].get(key)
        return record

    def scan(self, kind: type[R], prefix: Key = ()) -> Sequence[R]:
        """See `Store.scan`."""
        if not prefix:
            return cast("list[R]", list(self._records[kind].values()))
        if kind not in self._families:
            families = self._families[kind] = {}
            for key, record in self._records[kind].items():
                families.setdefault(key[0], {})[key] = record
        family = self._families[kind].get(prefix[0], {})
        length = len(prefix)
        return cast("list[R]", [each for key, each in family.items() if key[:length] == prefix])

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        """See `Store.commit`."""
        # First everything that can fail: the iterables, and the keys of records.
        deletions = tuple(delete)
        records = [(type(record), record.key, record) for record in put]
        for kind, key in deletions:
            self._records[kind].pop(key, None)
            if kind in self._families:
                family = self._families[kind].get(key[0], {})
                family.pop(key, None)
                if not family:
                    self._families[kind].pop(key[0], None)
        for each in records:
            self._set(*each)

    def defer(self, record: Record) -> None:
        """See `Store.defer`."""
        self._set(type(record), record.key, record)

    def _set(self, kind: type[Record], key: Key, record: Record) -> None:
        self._records[kind][key] = record
        if kind in self._families:
            self._families[kind].setdefault(key[0], {})[key] = record

    def all(self) -> Iterator[tuple[str, Key, Any]]:
        """Return every record, with the name of its kind and its key."""
        for kind, records in self._records.items():
            for key, record in records.items():
                yield kind.__name__, key, record

    def append(self, number: int, entry: object, *, oldest: int) -> None:
        """See `Store.append`."""

    def entries(self, kind: type[T]) -> Iterator[T]:
        """See `Store.entries`."""
        return iter(())

    def soon(self, write: Callable[[], None]) -> None:
        """See `Store.soon`; without an event loop, nothing more can come together."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            write()
        else:
            loop.call_soon(write)

    def close(self) -> None:
        """See `Store.close`."""
