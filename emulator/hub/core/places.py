"""Places: the order of rows, in which a scan can stop, and continue later at the same place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

# The place of a row: unique, and constant while the row exists.
Place = tuple[str, ...]


class Places:
    """The places of rows, in order."""

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self._places = sorted(places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: Place) -> None:
        """Add the place of a new row."""
        insort(self._places, place)

    def remove(self, place: Place) -> None:
        """Remove the place of a row that was deleted."""
        index = bisect_left(self._places, place)
        if self._places[index : index + 1] == [place]:
            del self._places[index]

    def after(self, place: Place = ()) -> Iterator[Place]:
        """Return the places after a place, in order.

        Rows can come and go meanwhile: places that are added or removed behind the current one have
        no effect, and those before it are respected.
        """
        places = self._places
        index = bisect_right(places, place)
        while index < len(places):
            place = places[index]
            yield place
            unchanged = index < len(places) and places[index] is place
            index = index + 1 if unchanged else bisect_right(places, place)
