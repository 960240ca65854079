"""All that is measured, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import arrivals, crowds, methods, searches, starts, telemetry, twins
from benchmarks.bench import Measure

MEASURES: Sequence[Measure] = (
    *methods.MEASURES,
    *twins.MEASURES,
    *telemetry.MEASURES,
    *arrivals.MEASURES,
    *crowds.MEASURES,
    *searches.MEASURES,
    *starts.MEASURES,
)
