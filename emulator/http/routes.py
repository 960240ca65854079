"""Every route of the REST API."""

from __future__ import annotations

from emulator.http import admin, configurations, identities, jobs, messages, queries, twins
from emulator.http.route import Route

ROUTES: tuple[Route, ...] = (
    *identities.ROUTES,
    *twins.ROUTES,
    *queries.ROUTES,
    *jobs.ROUTES,
    *configurations.ROUTES,
    *messages.ROUTES,
    *admin.ROUTES,
)
