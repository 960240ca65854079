"""Answers in pages.

The size and the place of a page are in the headers of the request; the place of the next page is in
the headers of the answer.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request
from emulator.http.responses import JSON
from emulator.hub.core.digits import whole_number
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.query.continuations import Page


def page_request(request: Request, most: int) -> tuple[int, str | None]:
    """Parse `x-ms-max-item-count`, from 1 up, and `x-ms-continuation`.

    Returns:
        The size of the page, at most `most` rows, which is also the default; and the continuation,
        None for the first page.

    Raises:
        ArgumentInvalid: the size is invalid.
    """
    text = request.headers.get("x-ms-max-item-count", str(most))
    size = whole_number(text)
    if not size:
        raise ArgumentInvalid(f"Invalid x-ms-max-item-count: {text}. Use a number from 1 up")
    return min(size, most), request.headers.get("x-ms-continuation") or None


def page_response(page: Page) -> Response:
    """Return the rows of a page; the last page has no `x-ms-continuation`."""
    headers = {"Content-Type": JSON, "x-ms-item-type": page.type}
    if page.continuation is not None:
        headers["x-ms-continuation"] = page.continuation
    return Response(body=b"[%s]" % b",".join(page.rows), headers=headers)
