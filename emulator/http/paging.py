"""Answers in pages (IoT Hub docs: query language).

The page's size and its place stand in the request's headers, the next page's place in the answer's.
"""

from __future__ import annotations

from typing import NamedTuple

from aiohttp.web_response import Response

from emulator.http.requests import Request
from emulator.http.responses import json_response
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.query.queries import Page


class PageRequest(NamedTuple):
    """Which page is asked for: `size` rows at most, after `continuation` (None: the first)."""

    size: int
    continuation: str | None


def page_request(request: Request) -> PageRequest:
    """Read `x-ms-max-item-count`, 1 and up, and `x-ms-continuation`.

    Without a size, and above the largest, a page has `limits.QUERY_PAGE` rows.

    Raises:
        ArgumentInvalid: the size is none.
    """
    text = request.headers.get("x-ms-max-item-count", str(limits.QUERY_PAGE))
    if not (text.isascii() and text.isdigit() and text.strip("0")):
        raise ArgumentInvalid(f"x-ms-max-item-count is not a number from 1 up: {text}")
    size = min(int(text[:10]), limits.QUERY_PAGE)
    return PageRequest(size, request.headers.get("x-ms-continuation") or None)


def page_response(page: Page) -> Response:
    """Answer with the rows; there is no `x-ms-continuation` on the last page."""
    headers = {"x-ms-item-type": page.type}
    if page.continuation is not None:
        headers["x-ms-continuation"] = page.continuation
    return json_response(page.items, headers=headers)
