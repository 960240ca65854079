"""Etags, and the `If-Match` precondition."""

from __future__ import annotations

import base64

from msgspec import Struct


def of_revision(revision: int) -> str:
    """Return the digits of a revision in Base64: `MQ==` is the first (seen on a real hub)."""
    return base64.b64encode(str(revision).encode()).decode()


class IfMatch(Struct, frozen=True):
    """A condition on the etag of the document that a writer overwrites.

    Args:
        etag: the etag that the document must have; `*` allows any etag. None sets no condition.
    """

    etag: str | None

    @classmethod
    def parse(cls, header: str | None) -> IfMatch:
        """Parse the header, bare or quoted; an empty one counts as absent (seen on a real hub)."""
        text = (header or "").strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        return cls(text or None)

    @property
    def absent(self) -> bool:
        """Whether the request has no condition."""
        return self.etag is None

    def allows(self, current: str) -> bool:
        """Return whether a document with the etag `current` can be overwritten."""
        return self.etag in (None, "*", current)
