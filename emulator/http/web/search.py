"""The search for devices and modules by a part of their ids, which no query can express."""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.pages import page_request, page_response
from emulator.http.requests import Request, read_json
from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.hub import IotHub
from emulator.hub.registry.documents import TwinRow

_FORM = members.Form("query", "id", closed=True)


async def search(hub: IotHub, request: Request) -> Response:
    """Return a page of the rows that a query finds, and whose id has a part; case is ignored.

    The id of a module is `device/module`. The scan takes slices, as that of a query.

    Raises:
        ArgumentInvalid: the body is not of that form, or the query is not one over twins.
    """
    body = members.document(await read_json(request), _FORM)
    text, part = members.text(body, "query"), (members.text(body, "id") or "").lower()
    if not text:
        raise ArgumentInvalid("The body has no query")
    size, continuation = page_request(request, limits.QUERY_PAGE)

    def has_part(row: object) -> bool:
        if not isinstance(row, TwinRow):
            raise ArgumentInvalid("A search is over devices or devices.modules")
        return part in "/".join(filter(None, row.identity.key)).lower()

    page = await hub.queries.run(
        text, size=size, continuation=continuation, only=has_part if part else None
    )
    return page_response(page)
