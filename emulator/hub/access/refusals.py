"""What one hub has refused of late, with the reasons that the clients do not get."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from emulator.hub.core.clock import Clock
from emulator.hub.core.refusals import refusals
from emulator.hub.feed import Change, Feed

_KEPT = 100
# A line is cut behind so many characters: a topic can have 64 KB.
_LENGTH = 1000


class Refused(Change, frozen=True):
    """The hub refused a request, a connection or a link.

    Args:
        text: what was refused, and why.
        time: the time of the refusal.
        error: the name of the error; "" if the refusal has none.
    """

    text: str
    time: datetime
    error: str = ""


class Refusals:
    """The last refusals of a hub; each is logged too."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self.recent: deque[Refused] = deque(maxlen=_KEPT)
        """The oldest is the first."""

    def info(self, text: str, *arguments: object, error: BaseException | None = None) -> None:
        """Log a refusal, as a logger does, and keep it.

        Args:
            text: what was refused, and why.
            arguments: the values in the text.
            error: the error by which it was refused.
        """
        refusals.info(text, *arguments)
        name = "" if error is None else type(error).__name__
        refused = Refused((text % arguments)[:_LENGTH], self._clock.now(), name)
        self.recent.append(refused)
        self._feed.publish(refused)
