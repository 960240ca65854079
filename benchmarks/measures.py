"""All measures, in the order of the table.

To add a row, write a function with `@measure(Row(...), servers=(...))` and list it here. A server
that the benchmarks do not know yet is one more entry in `benchmarks.servers.SERVERS`.
"""

from __future__ import annotations

from benchmarks import crowds, messages, methods, starts, telemetry, twins

MEASURES = (
    methods.round_trip,
    methods.callers,
    twins.read_and_patch,
    twins.patch_on_disk,
    telemetry.pipelined,
    telemetry.one_by_one,
    crowds.arrivals,
    crowds.crowd,
    messages.both_directions,
    messages.reading,
    twins.queries,
    starts.start,
    starts.start_with_devices,
)
