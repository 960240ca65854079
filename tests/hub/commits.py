"""A store that tells how often it was written."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.hub.core.store import Key, MemoryStore, Record


class CountingStore(MemoryStore):
    """A store that counts its commits."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[Key] = ()) -> None:
        self.commits += 1
        super().commit(put=put, delete=delete)
