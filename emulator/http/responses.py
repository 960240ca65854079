"""The responses that routes share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from aiohttp.web_response import Response

from emulator.http.errors import ErrorForm
from emulator.hub.core.errors import HubError
from emulator.hub.core.json import dumps

_TOO_MANY_REQUESTS = 429


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; the charset stands in the content type as a real hub writes it."""
    return Response(
        status=status,
        body=dumps(value),
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
    )


def no_content() -> Response:
    """Answer 204."""
    return Response(status=204)


def error_response(error: HubError, form: ErrorForm, now: datetime) -> Response:
    """Return an error, in the form of its route."""
    response = json_response(
        form(error, now), status=error.status, headers={"iothub-errorcode": error.name}
    )
    if response.status == _TOO_MANY_REQUESTS:
        response.force_close()  # as a real hub does, which sends no Retry-After (seen there)
    return response
