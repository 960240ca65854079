"""File uploads over HTTPS: a device starts an upload and reports its end; a service receives
notifications of files.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, read_json
from emulator.http.responses import lent_response, upload_body
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub
from emulator.hub.uploads.notifications import CONTENT_TYPE


async def start_upload(hub: IotHub, request: Request) -> JsonObject:
    """`POST /devices/{id}/files`: start an upload; 200 with a place for the file."""
    return hub.uploads.start(request.device, await read_json(request))


async def end_upload(hub: IotHub, request: Request) -> None:
    """`POST /devices/{id}/files/notifications`, or with `/{correlation id}`: end an upload; 204.

    The SDK for Python has the correlation id in the body, Node has it in the path, C# has both.
    """
    body = await read_json(request)
    await hub.uploads.end(request.device, body, request.names.get("correlation_id"))


async def receive_notification(hub: IotHub, _: Request) -> Response | None:
    """`GET /messages/serviceBound/filenotifications`: 200 with a locked notification, or 204."""
    found = hub.file_notifications.receive()
    return None if found is None else lent_response(found, found.document(), CONTENT_TYPE)


async def complete_notification(hub: IotHub, request: Request) -> None:
    """`DELETE /messages/serviceBound/filenotifications/{lock}`: 204."""
    hub.file_notifications.complete(request.names["lock"])


async def abandon_notification(hub: IotHub, request: Request) -> None:
    """`POST /messages/serviceBound/filenotifications/{lock}/abandon`: 204."""
    hub.file_notifications.abandon(request.names["lock"])


_FILES = "/devices/{device_id}/files"
_ENDED = _FILES + "/notifications"
_QUEUE = "/messages/serviceBound/filenotifications"
_USE = Operation.USE_FILE_NOTIFICATIONS
_END = Operation.END_UPLOAD

ROUTES = (
    Route("POST", _FILES, Operation.START_UPLOAD, start_upload, upload_body, for_device=True),
    Route("POST", _ENDED, _END, end_upload, upload_body, for_device=True),
    Route("POST", _ENDED + "/{correlation_id}", _END, end_upload, upload_body, for_device=True),
    Route("GET", _QUEUE, _USE, receive_notification),
    Route("DELETE", _QUEUE + "/{lock}", _USE, complete_notification),
    Route("POST", _QUEUE + "/{lock}/abandon", _USE, abandon_notification),
)
