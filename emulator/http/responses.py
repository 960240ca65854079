"""The responses that routes share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from aiohttp.web_response import Response

from emulator.http.errors import ErrorForm
from emulator.hub.core.errors import HubError
from emulator.hub.core.json import JsonObject, dumps

_TOO_MANY_REQUESTS = 429


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response; a real hub writes the charset in the content type in this way."""
    return Response(
        status=status,
        body=dumps(value),
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
    )


def tagged_response(document: JsonObject) -> Response:
    """Return a response with a document and its etag."""
    return json_response(document, headers={"ETag": f'"{document["etag"]}"'})


def error_response(error: HubError, form: ErrorForm, now: datetime) -> Response:
    """Return the response of an error, in the form of its route."""
    response = json_response(
        form(error, now), status=error.status, headers={"iothub-errorcode": error.name}
    )
    if response.status == _TOO_MANY_REQUESTS:
        response.force_close()  # a real hub does this, and sends no Retry-After (seen there)
    return response
