"""The `If-Match` precondition."""

from __future__ import annotations

from msgspec import Struct


class IfMatch(Struct, frozen=True):
    """What a writer demands of the etag that it overwrites.

    `etag` is None where nothing was demanded, and `*` where any etag will do.
    """

    etag: str | None

    @classmethod
    def parse(cls, header: str | None) -> IfMatch:
        """Read the header: bare or quoted; an empty one counts as absent (seen on a real hub)."""
        text = (header or "").strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        return cls(text or None)

    @property
    def absent(self) -> bool:
        """Nothing was demanded."""
        return self.etag is None

    def allows(self, current: str) -> bool:
        """Say whether a document with the etag `current` may be overwritten."""
        return self.etag in (None, "*", current)
