"""The readers of the event log, by consumer group and partition: which of them may read.

Readers with an owner level (an epoch) are alone: a higher or equal level takes the partition over.
Without one, five readers share it (Event Hubs docs: event consumers; the texts are those of a real
hub).
"""

from __future__ import annotations

import enum
from typing import Protocol

from emulator.hub.core import limits


class Reader(Protocol):
    """A reader of a partition."""

    level: int | None
    """Its owner level; None if it has none. 0 is a level."""
    name: str
    """What its program calls it, for the texts of others."""

    def displaced(self, reason: str) -> None:
        """Stop to read: another reader has the partition now."""


class Refusal(enum.Enum):
    """Why a reader is refused."""

    OWNED = enum.auto()  # by a reader with a higher level
    TOO_MANY = enum.auto()


class ReaderRefused(Exception):  # noqa: N818
    """A reader cannot read a partition."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.reason = reason


class ConsumerGroups:
    """The readers of each partition, by consumer group."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, str], list[Reader]] = {}

    def join(self, group: str, partition_id: str, reader: Reader) -> None:
        """Let a reader read a partition; readers with a lower level, or without one, must stop.

        Raises:
            ReaderRefused: a reader has a higher level, or there are too many readers.
        """
        readers = self._readers.setdefault((group.lower(), partition_id), [])
        owner = next((each for each in readers if each.level is not None), None)
        if reader.level is None:
            if owner is not None:
                raise ReaderRefused(
                    Refusal.OWNED,
                    f"At least one receiver for the endpoint is created with epoch of "
                    f"'{owner.level}', and so non-epoch receiver is not allowed. Either reconnect "
                    "with a higher epoch, or make sure all epoch receivers are closed or "
                    "disconnected.",
                )
            if len(readers) >= limits.EVENT_READERS:
                names = ", ".join(f"'{each.name}'" for each in readers)
                raise ReaderRefused(
                    Refusal.TOO_MANY,
                    "Exceeded the maximum number of allowed receivers per partition in a "
                    f"consumer group which is {limits.EVENT_READERS}. List of connected receivers "
                    f"- {names}.",
                )
        elif owner is not None and (owner.level or 0) > reader.level:
            raise ReaderRefused(
                Refusal.OWNED,
                f"Receiver '{owner.name}' with a higher epoch of '{owner.level}' already exists. "
                f"Receiver '{reader.name}' with epoch {reader.level} cannot be created. Make sure "
                "you are creating receiver with increasing epoch value to ensure connectivity, or "
                "ensure all old epoch receivers are closed or disconnected.",
            )
        else:
            for each in tuple(readers):
                readers.remove(each)
                each.displaced(
                    f"New receiver '{reader.name}' with higher epoch of '{reader.level}' is "
                    f"created hence current receiver '{each.name}' with epoch "
                    f"'{-1 if each.level is None else each.level}' is getting disconnected. If "
                    "you are recreating the receiver, make sure a higher epoch is used."
                )
        readers.append(reader)

    def leave(self, group: str, partition_id: str, reader: Reader) -> None:
        """Note that a reader has ended; without effect if it was displaced."""
        readers = self._readers.get((group.lower(), partition_id), [])
        if reader in readers:
            readers.remove(reader)
        if not readers:
            self._readers.pop((group.lower(), partition_id), None)
