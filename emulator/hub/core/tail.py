"""A list without its beginning: numbered items, of which the oldest are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# The places of dropped items are given back when they are so many, and half of all.
_SPARE = 1_000


class Tail(Generic[T]):
    """Items with numbers without gaps. Any of them is reached in the same short time."""

    def __init__(self, begin: int = 0) -> None:
        self._items: list[T | None] = []
        self.begin = begin
        """The number of the oldest item."""
        self.end = begin
        """The number that the next item will have."""
        self._dropped = 0  # places at the beginning of the list

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def first(self) -> T:
        """The oldest item."""
        return self._items[self._dropped]  # type: ignore[return-value]

    def __getitem__(self, number: int) -> T:
        return self._items[number - self.begin + self._dropped]  # type: ignore[return-value]

    def extend(self, items: Sequence[T]) -> None:
        """Add items with the next numbers."""
        self._items += items
        self.end += len(items)

    def drop(self, count: int = 1) -> list[T]:
        """Remove the oldest items, and return them; there must be so many."""
        places = slice(self._dropped, self._dropped + count)
        items = self._items[places]
        self._items[places] = [None] * count
        self._dropped += count
        self.begin += count
        if self._dropped > _SPARE and 2 * self._dropped > len(self._items):
            del self._items[: self._dropped]
            self._dropped = 0
        return items  # type: ignore[return-value]
