"""A route: a verb and a path, the operation that the gate checks, and the handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp.web_response import StreamResponse
from msgspec import Struct

from emulator.http.errors import ErrorForm, message_body
from emulator.http.requests import Request
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission

Handler = Callable[[IotHub, Request], Awaitable[StreamResponse]]
DeviceHandler = Callable[[IotHub, Request, Admission], Awaitable[StreamResponse]]


class Route(Struct, frozen=True):
    """A route for services.

    Args:
        path: such as `/devices/{device_id}`; see `Router`.
        operation: what a request for it does; the gate knows the right and the throttle.
        error_form: how this family of routes writes its errors.
        versioned: whether it is a hub's own route: a request must name an api-version, and a body
            that names its type must be JSON. The emulator's own routes are for curl as well.
    """

    verb: str
    path: str
    operation: Operation
    handler: Handler
    error_form: ErrorForm = message_body
    versioned: bool = True


class DeviceRoute(Struct, frozen=True):
    """A route that a device calls for itself; its path names the device."""

    verb: str
    path: str
    operation: Operation
    handler: DeviceHandler
