"""Throttles: how much callers may ask of a hub in a time (IoT Hub docs: quotas and throttling).

A real hub shapes traffic before it refuses any: a burst passes, what comes on top of it waits, and
only what waits too long is refused. Here nothing waits: a burst of a throttle's whole allowance
passes, the rest is refused at once, and the allowance comes back at the throttle's rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeVar

from msgspec import Struct

from emulator.hub.access.operations import RULES, Operation, Throttle
from emulator.hub.core import limits
from emulator.hub.core.clock import Clock, SystemClock
from emulator.hub.core.errors import ThrottlingException

_T = TypeVar("_T")

_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|min)", re.ASCII)
_SECONDS = {"s": 1, "min": 60}
_MICROSECOND = timedelta(microseconds=1)


class ThrottleError(ValueError):
    """A setting is no throttle; the text is one line that says what would be one."""


class Rate(Struct, frozen=True):
    """So many operations in so many seconds; of either there is at least one."""

    count: int
    seconds: int


class Throttles:
    """How much callers may ask for in a time.

    Args:
        rates: by the throttle's name; what has none may be asked for without limit.
        job_slots: how many scheduled jobs may be active or scheduled at a time.
        clock: the clock of the hub.
    """

    def __init__(
        self,
        rates: Mapping[str, Rate] = MappingProxyType({}),
        *,
        job_slots: int = limits.JOBS_ACTIVE,
        clock: Clock | None = None,
    ) -> None:
        self._buckets = {name: _Bucket(rate) for name, rate in rates.items()}
        self._job_slots = job_slots
        self._clock = clock or SystemClock()

    @classmethod
    def parse(cls, settings: Iterable[str], *, clock: Clock | None = None) -> Throttles:
        """Read settings: a tier, such as `S1`, and rates of its own, such as `queries=20/min`.

        A rate stands above the tier's. Without any setting there is no limit.

        Raises:
            ThrottleError: one is neither, or two say different things about the same.
        """
        tiers: dict[str, str] = {}
        rates: dict[str, Rate] = {}
        for setting in settings:
            name, equals, rate = setting.partition("=")
            if equals:
                _set_once(rates, _throttle(name), _rate(setting, rate), setting)
            else:
                _set_once(tiers, "tier", _tier(setting), setting)
        if not tiers:
            return cls(rates, clock=clock)
        tier = tiers["tier"]
        given = {name: Rate(*by_tier[tier]) for name, by_tier in limits.THROTTLES.items()}
        return cls({**given, **rates}, job_slots=limits.JOBS_ACTIVE_BY_TIER[tier], clock=clock)

    @property
    def job_slots(self) -> int:
        """How many scheduled jobs may be active or scheduled at a time."""
        return self._job_slots

    def charge(self, operation: Operation, *, size: int = 0) -> None:
        """Count an operation; one that is refused doesn't count.

        Args:
            operation: what is asked for.
            size: how many bytes are sent with it: a direct method counts once for each 4 KB.

        Raises:
            ThrottlingException: the allowance is used up.
        """
        rule = RULES[operation]
        bucket = self._buckets.get(rule.throttle or "")
        metered = operation is Operation.INVOKE_METHOD and size > 0
        amount = -(-size // limits.THROTTLE_METER_BYTES) if metered else 1
        if bucket is not None and not bucket.take(amount, self._clock.now()):
            raise ThrottlingException(
                "The request has been throttled. Wait 10 seconds and try again. "
                f"Operation type: {rule.name}"
            )


class _Bucket:
    """One throttle's allowance.

    What is used of it is kept in whole numbers, so that no rounding adds up: an operation is worth
    as much as the rate's period has microseconds, and with each microsecond `count` are given back.
    """

    def __init__(self, rate: Rate) -> None:
        self._count = rate.count
        self._worth = timedelta(seconds=rate.seconds) // _MICROSECOND
        self._used = 0
        self._at: datetime | None = None

    def take(self, amount: int, now: datetime) -> bool:
        """Use up an allowance for so many operations, or nothing if it doesn't suffice."""
        if self._at is not None and now > self._at:  # a clock that is set back gives nothing
            self._used = max(0, self._used - (now - self._at) // _MICROSECOND * self._count)
        self._at = now
        # What is larger than the whole allowance passes when nothing else is used of it.
        used = self._used + min(amount, self._count) * self._worth
        if used > self._count * self._worth:
            return False
        self._used = used
        return True


# --- reading settings


def _tier(setting: str) -> str:
    tier = setting.upper()
    if tier not in limits.JOBS_ACTIVE_BY_TIER:
        tiers = ", ".join(limits.JOBS_ACTIVE_BY_TIER)
        raise ThrottleError(
            f"{setting!r} is no throttle: a tier is ({tiers}), and so is a rate such as "
            "queries=20/min"
        )
    return tier


def _throttle(name: str) -> str:
    if name not in set(Throttle):
        raise ThrottleError(f"Unknown throttle {name!r}: use one of {', '.join(Throttle)}.")
    return name


def _rate(setting: str, text: str) -> Rate:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ThrottleError(
            f"{setting!r} has no rate: a number from 1 up and its time are one, such as 20/min "
            "or 5/s"
        )
    return Rate(int(match[1]), _SECONDS[match[2]])


def _set_once(settings: dict[str, _T], name: str, value: _T, setting: str) -> None:
    if settings.setdefault(name, value) != value:
        raise ThrottleError(f"{setting!r} contradicts another throttle: give one of the two")
