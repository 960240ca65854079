"""Every route of the REST API."""

from __future__ import annotations

from emulator.http import configurations, files, identities, jobs, messages, queries, twins
from emulator.http.admin import (
    calls,
    certificates,
    clock,
    commands,
    events,
    faults,
    openapi,
    waits,
)
from emulator.http.route import Route

_FAMILIES = identities, twins, queries, jobs, configurations, messages, files
_OWN = events, commands, clock, faults, certificates, waits, calls, openapi

ROUTES: tuple[Route, ...] = tuple(
    route for family in (*_FAMILIES, *_OWN) for route in family.ROUTES
)
