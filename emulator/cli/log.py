"""What the command logs to stderr: refusals and warnings, or more, or less."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from emulator.hub.core.refusals import refusals

# A line is logged once in this time, and at most so many different ones are: a device that tries
# again and again must not fill the log.
WINDOW_SECONDS = 10.0
LINES = 50
# A line is cut behind so many characters: a topic can have 64 KB.
LENGTH = 1000

# What differs between two attempts of the same client: its port, and times in seconds.
_VARYING = re.compile(r"(?<=[: ])\d{4,}\b")


class _Line:
    """A line that was logged: until when it is not logged again, and how often it was left out."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.left_out = 0


class Limit(logging.Filter):
    """Lets each line pass once in `WINDOW_SECONDS`; the next one has the number of the others.

    Debug lines always pass: each is about one event, and was asked for.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._logged: dict[str, _Line] = {}  # the oldest first

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        if record.levelno < logging.INFO:
            return True
        now, message = self._monotonic(), record.getMessage()
        if len(message) > LENGTH:
            message = f"{message[:LENGTH]} ..."
        text = _VARYING.sub("", message)
        self._forget(now)
        if text not in self._logged and len(self._logged) >= LINES:
            text = message = "Too many different lines: the others of these seconds are left out."
        line = self._logged.get(text)
        if line is not None and now < line.until:
            line.left_out += 1
            return False
        more = self._logged.pop(text).left_out if line is not None else 0
        self._logged[text] = _Line(now + WINDOW_SECONDS)
        record.msg = f"{message} ({more} more before this)" if more else message
        record.args = None
        return True

    def _forget(self, now: float) -> None:
        """Forget old lines; the number of what was left out is kept for one more window."""
        for text, line in list(self._logged.items()):
            kept = WINDOW_SECONDS if line.left_out else 0.0
            if line.until + kept <= now:
                del self._logged[text]


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
