"""The time by which SAS tokens are judged.

Clients make their tokens with the machine's time. So the machine's time decides whether a token is
valid when it arrives. It expires when its remaining lifetime has passed on the clock of the hub.
"""

from __future__ import annotations

from emulator.hub.core.clock import Clock


class TokenTime:
    """Says when a token is over.

    Args:
        clock: the clock of the hub.
        tolerance: for how many seconds a token is still accepted when it has expired. A real hub
            has 300 (azure-iot-sdk-csharp#97, azure-iot-sdk-c#163). It accepts open connections for
            longer, 5 to 10 minutes; here this is the same time.
    """

    def __init__(self, clock: Clock, tolerance: float = 0.0) -> None:
        self._clock = clock
        self.tolerance = tolerance

    def __str__(self) -> str:
        """Return the time for the log."""
        late = f", {self.tolerance:.0f} s late is tolerated" if self.tolerance else ""
        return f"the time is {self._now():.0f}{late}"

    def is_over(self, expiry: float) -> bool:
        """Return whether a token that arrives is over; `expiry` is in seconds since the epoch."""
        return expiry + self.tolerance <= self._now()

    def end(self, expiry: float) -> float:
        """Return the hub's time at which a token that has arrived is over."""
        return expiry + self.tolerance + self._clock.ahead

    def _now(self) -> float:
        return self._clock.machine.now().timestamp()
