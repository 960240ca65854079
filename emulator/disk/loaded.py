"""A store whose records stay bytes until they are asked for: a start need not decode them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec

from emulator.disk.codec import decode, decode_key
from emulator.disk.file import Damaged
from emulator.disk.rows import LogRow, RecordRow
from emulator.hub.core.store import Key, MemoryStore, R, Record, T


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


class LoadedStore(MemoryStore):
    """A store in memory, with the content of a file."""

    def __init__(self) -> None:
        super().__init__()
        self._decoded: set[type[Record]] = set()
        self._log: list[bytes] = []

    def load(self, records: Iterable[RecordRow], log: Iterable[LogRow]) -> None:
        """Take the rows of a file; a store does it once, before all else.

        Raises:
            Damaged: the key of a record is malformed.
        """
        self._rows: dict[str, dict[Key, Any]] = {}
        rows = self._rows
        try:
            for kind, key, data, _ in records:
                of_kind = rows.get(kind)
                if of_kind is None:
                    of_kind = rows[kind] = {}
                of_kind[decode_key(key)] = data
        except (TypeError, msgspec.DecodeError) as error:
            raise Damaged(str(error)) from error
        self._log = [data for _, data, _ in log]
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

    def entries(self, kind: type[T]) -> Iterator[T]:
        """See `Store.entries`; a second call returns none."""
        log, self._log = self._log, []
        return (decode(kind, data) for data in log)

    def all(self) -> Iterator[tuple[str, Key, Any]]:
        """See `MemoryStore.all`; a record can be bytes."""
        yield from super().all()
        for kind, records in self._rows.items():  # nothing has asked for these kinds
            for key, data in records.items():
                yield kind, key, data
