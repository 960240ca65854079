"""A list without its beginning: numbered items, of which the oldest are dropped."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# The places of dropped items are given back when they are so many, and half of all.
_SPARE = 1_000


class Tail(Generic[T]):
    """Items with numbers without gaps. Any of them is reached in the same short time."""

    def __init__(self, begin: int = 0) -> None:
        self._items: list[T | None] = []
        self.append: Callable[[T], None] = self._items.append
        """Adds an item with the next number."""
        self.begin = begin
        """The number of the oldest item."""
        self._dropped = 0  # places at the beginning of the list

    def __len__(self) -> int:
        return len(self._items) - self._dropped

    @property
    def end(self) -> int:
        """The number that the next item will have."""
        return self.begin + len(self)

    def __iter__(self) -> Iterator[T]:
        for place in range(self._dropped, len(self._items)):
            yield self._items[place]  # type: ignore[misc]

    @property
    def first(self) -> T:
        """The oldest item."""
        return self._items[self._dropped]  # type: ignore[return-value]

    @first.setter
    def first(self, item: T) -> None:
        self._items[self._dropped] = item

    def __getitem__(self, number: int) -> T:
        return self._items[number - self.begin + self._dropped]  # type: ignore[return-value]

    def find(self, value: int, key: Callable[[T], int]) -> int:
        """Return the number of the last item whose key is at most `value`.

        Args:
            value: the value; below all keys, the result is the number before the first item.
            key: returns the key of an item; the items are in the order of their keys.
        """
        place = bisect.bisect_right(self._items, value, self._dropped, key=key)  # type: ignore[arg-type]
        return place - 1 - self._dropped + self.begin

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
