"""Every route of the REST API."""

from __future__ import annotations

from emulator.http import admin, configurations, identities, jobs, messages, queries, twins
from emulator.http.route import Route

_FAMILIES = (identities, twins, queries, jobs, configurations, messages, admin)

ROUTES: tuple[Route, ...] = tuple(route for family in _FAMILIES for route in family.ROUTES)
