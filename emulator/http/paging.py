"""Answers in pages (IoT Hub docs: query language).

The size and the place of a page are in the headers of the request; the place of the next page is in
the headers of the answer.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request
from emulator.http.responses import json_response
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.query.queries import Page


def page_request(request: Request) -> tuple[int, str | None]:
    """Parse `x-ms-max-item-count`, from 1 up, and `x-ms-continuation`.

    Returns:
        The size of the page, at most `limits.QUERY_PAGE` rows, which is also the default; and the
        continuation, None for the first page.

    Raises:
        ArgumentInvalid: the size is invalid.
    """
    text = request.headers.get("x-ms-max-item-count", str(limits.QUERY_PAGE))
    if not (text.isascii() and text.isdigit() and text.strip("0")):
        raise ArgumentInvalid(f"Invalid x-ms-max-item-count: {text}. Use a number from 1 up")
    size = min(int(text[:10]), limits.QUERY_PAGE)
    return size, request.headers.get("x-ms-continuation") or None


def page_response(page: Page) -> Response:
    """Return the rows of a page; the last page has no `x-ms-continuation`."""
    headers = {"x-ms-item-type": page.type}
    if page.continuation is not None:
        headers["x-ms-continuation"] = page.continuation
    return json_response(page.items, headers=headers)
