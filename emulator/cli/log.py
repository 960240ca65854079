"""What the command logs to stderr: refusals and warnings, or more, or less."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable

from emulator.hub.core.refusals import refusals

# A line is logged once in this time, and at most so many different ones are: a device that tries
# again and again must not fill the log.
WINDOW_SECONDS = 10.0
LINES = 50

# What differs between two attempts of the same client: its port, and times in seconds.
_VARYING = re.compile(r"(?<=[: ])\d{4,}\b")


class Limit(logging.Filter):
    """Lets each line pass once in `WINDOW_SECONDS`; the next one has the number of the others.

    Debug lines always pass: each is about one event, and was asked for.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._until = 0.0
        self._seen: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        if record.levelno < logging.INFO:
            return True
        now = self._monotonic()
        if now >= self._until:
            self._until = now + WINDOW_SECONDS
            # Of each line, the first one was logged.
            self._left_out = Counter({text: n - 1 for text, n in self._seen.items() if n > 1})
            self._seen = Counter()
        line = record.getMessage()
        text = _VARYING.sub("", line)
        if text not in self._seen and len(self._seen) >= LINES:
            text = ""  # all that are too many
            line = "Too many different lines: the others of these seconds are left out."
        self._seen[text] += 1
        if self._seen[text] > 1:
            return False
        more = self._left_out.pop(text, 0)
        record.msg = f"{line} ({more} more before this)" if more else line
        record.args = None
        return True


def set_up(*, verbose: bool, quiet: bool) -> None:
    """Log to stderr: warnings of all libraries, and refusals unless `quiet`; all if `verbose`."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Limit())
    logging.getLogger("emulator").setLevel(logging.DEBUG if verbose else logging.WARNING)
    refusals.setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("asyncio").addFilter(_is_worth_saying)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Leave out what asyncio logs thousands of times, where uvloop logs nothing.

    The first message is about connections that wait while no more files can be opened; they are
    accepted once others have ended. The second is about peers that left before they had read
    everything.
    """
    noise = ("socket.accept() out of system resource", "socket.send() raised exception")
    return not record.getMessage().startswith(noise)
