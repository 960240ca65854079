"""Throttles: the allowances of callers (IoT Hub docs: quotas and throttling).

A real hub shapes traffic: it passes a burst, delays the requests that exceed it, and refuses only
the requests that would wait too long. Here a burst of the whole allowance of a throttle passes, and
the hub refuses the rest at once. What it can't refuse, such as telemetry over MQTT, waits for its
turn. The allowance returns at the throttle's rate.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from emulator.hub.access.operations import OF_ONE_DEVICE, Operation, Throttle
from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import ThrottlingException

_RATE = re.compile(r"([a-z0-9-]+)=([1-9][0-9]{0,8})/(s|min)", re.ASCII)
_SECONDS = {"s": 1, "min": 60}
_MICROSECOND = timedelta(microseconds=1)

# Ours: of so many devices, the allowances are known; that of the oldest one begins anew.
_DEVICES = 10_000


class ThrottleError(ValueError):
    """A setting is not a valid throttle; the text is one line, with the valid settings."""


class Rate(Struct, frozen=True):
    """A number of operations in a number of seconds; both are at least 1."""

    count: int
    seconds: int


class Throttles:
    """The throttles of a hub.

    Args:
        rates: by the throttle's name; a throttle without a rate has no limit.
        job_slots: how many scheduled jobs can be active or scheduled at a time.
        clock: the clock of the hub.
    """

    def __init__(
        self,
        rates: Mapping[str, Rate] = {},
        *,
        job_slots: int = limits.JOBS_ACTIVE,
        clock: Clock | None = None,
    ) -> None:
        self._buckets = {name: _Bucket(rate) for name, rate in rates.items()}
        self._of_devices: dict[tuple[str, str], _Bucket] = {}
        self.active = bool(rates)
        """Whether there is any limit: most hubs have none."""
        self._clock = clock or Clock()
        self.job_slots = job_slots

    @classmethod
    def parse(cls, settings: Iterable[str], *, clock: Clock | None = None) -> Throttles:
        """Parse settings: a tier, such as `S1`, and single rates, such as `queries=20/min`.

        A single rate replaces the tier's. Without settings, requests are not limited.

        Raises:
            ThrottleError: a setting is invalid, or two settings contradict each other.
        """
        tier = ""
        rates: dict[str, Rate] = {}
        for setting in settings:
            match = _RATE.fullmatch(setting)
            if match is not None and match[1] in set(Throttle):
                rate = Rate(int(match[2]), _SECONDS[match[3]])
                contradicts = rates.setdefault(match[1], rate) != rate
            elif setting.upper() in limits.JOBS_ACTIVE_BY_TIER:
                tier = tier or setting.upper()
                contradicts = tier != setting.upper()
            else:
                raise ThrottleError(
                    f"Invalid throttle {setting!r}: use a tier "
                    f"({', '.join(limits.JOBS_ACTIVE_BY_TIER)}) or a rate such as queries=20/min. "
                    f"A rate is a number from 1 up per s or min, for {', '.join(Throttle)}."
                )
            if contradicts:
                raise ThrottleError(f"{setting!r} contradicts another throttle: use one of them.")
        if not tier:
            return cls(rates, clock=clock)
        of_tier = {name: Rate(*by_tier[tier]) for name, by_tier in limits.THROTTLES.items()}
        return cls({**of_tier, **rates}, job_slots=limits.JOBS_ACTIVE_BY_TIER[tier], clock=clock)

    def charge(self, operation: Operation, *, size: int = 0, device: str = "") -> None:
        """Count an operation; a refused operation is not counted.

        Args:
            operation: the operation.
            size: the bytes that the caller sends with it: a direct method counts once for each
                4 KB.
            device: the id of the device that does it, if each device has its own allowance.

        Raises:
            ThrottlingException: the allowance is used up.
        """
        bucket = self._buckets.get(operation.throttle or "")
        if bucket is None:
            return
        if operation.throttle in OF_ONE_DEVICE:
            bucket = self._of_device(bucket, operation.throttle, device)
        metered = operation.throttle is Throttle.METHODS and size > 0
        amount = -(-size // limits.THROTTLE_METER_BYTES) if metered else 1
        if bucket.queue.locked() or not bucket.take(amount, self._clock.now()):
            raise throttled(operation)

    def _of_device(self, of_all: _Bucket, throttle: str, device: str) -> _Bucket:
        """Return the allowance of one device."""
        key = throttle, device
        if (bucket := self._of_devices.get(key)) is None:
            if len(self._of_devices) >= _DEVICES:
                del self._of_devices[next(iter(self._of_devices))]
            bucket = self._of_devices[key] = _Bucket(of_all.rate)
        return bucket

    def limits(self, operation: Operation) -> bool:
        """Return whether there is a limit for an operation."""
        return operation.throttle in self._buckets

    async def wait(self, operation: Operation) -> None:
        """Wait until an operation can be charged; callers have their turn in their order.

        The caller charges it before another task runs. Requests that do not wait are refused while
        a caller waits.
        """
        if bucket := self._buckets.get(operation.throttle or ""):
            async with bucket.queue:
                while seconds := bucket.shortage(self._clock.now()):
                    await self._clock.sleep(seconds)


def throttled(operation: Operation) -> ThrottlingException:
    """Return the refusal of an operation (seen on a real hub)."""
    return ThrottlingException(
        "The request has been throttled. Wait 10 seconds and try again. "
        f"Operation type: {operation.title}"
    )


class _Bucket:
    """The allowance of one throttle.

    The used part is a whole number, so that no rounding error adds up. An operation uses as many
    units as the period of the rate has microseconds, and each microsecond returns `count` units.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._count = rate.count
        self._worth = timedelta(seconds=rate.seconds) // _MICROSECOND
        self._used = 0
        self._at: datetime | None = None
        self.queue = asyncio.Lock()
        """Held by the caller that waits, and asked for by those behind it."""

    def take(self, amount: int, now: datetime) -> bool:
        """Use the allowance for `amount` operations, or return False if it is too small."""
        self._refill(now)
        # An operation that is larger than the whole allowance passes if nothing else is used.
        used = self._used + min(amount, self._count) * self._worth
        if used > self._count * self._worth:
            return False
        self._used = used
        return True

    def shortage(self, now: datetime) -> float:
        """Return the seconds until the allowance is enough for an operation; 0 if it is."""
        self._refill(now)
        missing = self._used + self._worth - self._count * self._worth
        return max(0, -(-missing // self._count)) / 10**6

    def _refill(self, now: datetime) -> None:
        if self._at is not None and now > self._at:  # a clock that was set back returns nothing
            self._used = max(0, self._used - (now - self._at) // _MICROSECOND * self._count)
        self._at = now
