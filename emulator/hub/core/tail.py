"""A list without its beginning: numbered items, of which the oldest are dropped."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

# The places of dropped items are given back when they are so many, and half of all.
_SPARE = 1_000


class Tail(Generic[T]):
    """Items with numbers without gaps, from 0. Any of them is reached in the same short time."""

    def __init__(self) -> None:
        self._items: list[T | None] = []
        self._begin = 0  # the number of the first item
        self._dropped = 0  # places at the beginning of the list
        self.append = self._items.append
        """Add an item with the next number."""

    def __len__(self) -> int:
        return len(self._items) - self._dropped

    @property
    def begin(self) -> int:
        """The number of the oldest item."""
        return self._begin

    @property
    def end(self) -> int:
        """The number that the next item will have."""
        return self._begin + len(self)

    @property
    def first(self) -> T:
        """The oldest item."""
        return self._items[self._dropped]  # type: ignore[return-value]

    def __getitem__(self, number: int) -> T:
        return self._items[number - self._begin + self._dropped]  # type: ignore[return-value]

    def drop(self) -> T:
        """Remove the oldest item, and return it."""
        item = self._items[self._dropped]
        self._items[self._dropped] = None
        self._dropped += 1
        self._begin += 1
        if self._dropped > _SPARE:
            self._give_back()
        return item  # type: ignore[return-value]

    def drop_until(self, number: int) -> None:
        """Remove the items whose numbers are lower."""
        count = number - self._begin
        self._items[self._dropped : self._dropped + count] = [None] * count
        self._dropped += count
        self._begin += count
        self._give_back()

    def _give_back(self) -> None:
        if self._dropped > _SPARE and 2 * self._dropped > len(self._items):
            del self._items[: self._dropped]
            self._dropped = 0
