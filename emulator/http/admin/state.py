"""The whole state of the hub: `/_emulator/reset`, `/_emulator/snapshot`, `/_emulator/restore`."""

from __future__ import annotations

from typing import Protocol

from aiohttp.web_response import Response

from emulator.errors import SnapshotError
from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, read_json, read_large_body
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.hub import IotHub

_TYPE = "application/vnd.sqlite3"

_FORM = members.Form("scope", closed=True)
_ALL, _EVENTS = "all", "events"


class Control(Protocol):
    """What can replace the state of a hub: see `Running`."""

    async def reset(self, *, events_only: bool = False) -> None:
        """Begin a new hub, or drop all events."""

    def snapshot(self) -> bytes:
        """Return the state of the hub."""

    async def restore(self, snapshot: bytes) -> None:
        """Begin a new hub with the state of a snapshot.

        Raises:
            SnapshotError
        """


def routes(control: Control) -> tuple[Route, ...]:
    """Return the routes that use a control."""

    async def reset(_: IotHub, request: Request) -> None:
        """`POST /_emulator/reset`: begin a new hub, or drop the events of its log; 204.

        The body is empty, or `{"scope": "all"}`, or `{"scope": "events"}`.
        """
        check_parameters(request)
        body = await read_json(request, optional=True)
        scope = members.text(members.document({} if body is None else body, _FORM), "scope")
        if scope not in (None, _ALL, _EVENTS):
            raise ArgumentInvalid(f"Unknown scope: {scope}. Use {_ALL} or {_EVENTS}")
        await control.reset(events_only=scope == _EVENTS)

    async def snapshot(_: IotHub, request: Request) -> Response:
        """`GET /_emulator/snapshot`: the state of the hub, with all keys; 200."""
        check_parameters(request)
        return Response(body=control.snapshot(), content_type=_TYPE)

    async def restore(_: IotHub, request: Request) -> None:
        """`POST /_emulator/restore`: begin a new hub with the snapshot in the body; 204."""
        check_parameters(request)
        try:
            await control.restore(await read_large_body(request, limits.SNAPSHOT_BYTES))
        except SnapshotError as error:
            raise ArgumentInvalid(str(error)) from None

    return (
        Route("POST", "/_emulator/reset", Operation.REPLACE_STATE, reset, versioned=False),
        Route("GET", "/_emulator/snapshot", Operation.TAKE_SNAPSHOT, snapshot, versioned=False),
        Route("POST", "/_emulator/restore", Operation.REPLACE_STATE, restore, versioned=False),
    )
