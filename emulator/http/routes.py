"""Every route of the REST API."""

from __future__ import annotations

from emulator.http import (
    admin,
    configurations,
    devices,
    digital_twins,
    import_export,
    jobs,
    messages,
    methods,
    modules,
    query,
    statistics,
    twins,
)
from emulator.http.route import Route

ROUTES: tuple[Route, ...] = (
    *devices.ROUTES,
    *modules.ROUTES,
    *statistics.ROUTES,
    *twins.ROUTES,
    *methods.ROUTES,
    *query.ROUTES,
    *jobs.ROUTES,
    *import_export.ROUTES,
    *configurations.ROUTES,
    *digital_twins.ROUTES,
    *messages.ROUTES,
    *admin.ROUTES,
)
