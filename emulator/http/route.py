"""A route: an HTTP method and a path, the operation that the gate checks, and the handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp.web_response import StreamResponse
from msgspec import Struct

from emulator.http.requests import Request
from emulator.http.responses import ErrorForm, message_body
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub

# The result of a handler: a JSON document for status 200, None for 204, or another response.
Result = JsonObject | list[JsonObject] | StreamResponse | None
Handler = Callable[[IotHub, Request], Awaitable[Result]]


class Route(Struct, frozen=True):
    """A route of the REST API.

    Args:
        verb: the HTTP method.
        path: a path such as `/devices/{device_id}`; see `Router`.
        operation: the operation of a request; the gate knows its right and its throttle. None lets
            every caller in, without a token.
        handler: the function that answers a request.
        error_form: the form of the errors of this family of routes.
        for_device: whether devices call it, not services. Its path has the id of the device, and a
            request has the device's admission.
        versioned: whether it is a route of a real hub: a request must name an api-version, and the
            content type of a service's request must be JSON. The emulator's own routes need
            neither.
    """

    verb: str
    path: str
    operation: Operation | None
    handler: Handler
    error_form: ErrorForm = message_body
    for_device: bool = False
    versioned: bool = True
