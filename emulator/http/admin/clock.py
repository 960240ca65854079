"""The clock of the hub: `/_emulator/clock`."""

from __future__ import annotations

from datetime import timedelta

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid, ArgumentNull
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.times import iso, parse_duration
from emulator.hub.hub import IotHub

_FORM = members.Form("advance", closed=True)

_SHOWN = 100  # how much of a value an error repeats, in characters


async def read_clock(hub: IotHub, request: Request) -> JsonObject:
    """`GET /_emulator/clock`: 200 with `{"now", "advancedBy"}`; the latter in seconds."""
    check_parameters(request)
    return _document(hub)


async def advance_clock(hub: IotHub, request: Request) -> JsonObject:
    """`POST /_emulator/clock`: advance the clock; 200 when everything that became due is done.

    The body is `{"advance": "PT1H"}`, an ISO 8601 duration, or a number of seconds. The answer is
    that of GET.
    """
    check_parameters(request)
    document = members.document(await read_json(request), _FORM)
    try:
        await hub.clock.pass_time(_seconds(document.get("advance")))
    except ValueError as error:
        raise ArgumentInvalid(str(error)) from None
    return _document(hub)


def _document(hub: IotHub) -> JsonObject:
    return {"now": iso(hub.clock.now()), "advancedBy": hub.clock.ahead}


def _seconds(value: object) -> float:
    if value is None:
        raise ArgumentNull(f"advance is missing. {_ALLOWED}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return min(value, _MOST)  # an integer of JSON can be larger than every float
    span = parse_duration(value) if isinstance(value, str) else None
    if span is None:
        shown = dumps(value).decode()[:_SHOWN]
        raise ArgumentInvalid(f"Invalid advance: {shown}. {_ALLOWED}")
    return span.total_seconds()


_ALLOWED = 'Use an ISO 8601 duration, such as "PT1H" or "P2DT30M", or a number of seconds'
_MOST = timedelta.max.total_seconds()
_CLOCK = "/_emulator/clock"

ROUTES = (
    Route("GET", _CLOCK, Operation.READ_CLOCK, read_clock, versioned=False),
    Route("POST", _CLOCK, Operation.ADVANCE_CLOCK, advance_clock, versioned=False),
)
