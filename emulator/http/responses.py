"""The responses that routes share. Errors have four forms, and each route has one of them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse

from emulator.hub.core import errors
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.times import iso
from emulator.hub.messages.locks import Queued

# How much of a long answer is sent at a time.
_CHUNK_BYTES = 64 * 1024

# A real hub writes the charset in this way.
JSON = "application/json; charset=utf-8"

ErrorForm = Callable[[errors.HubError, datetime], JsonObject]


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    all_headers = {"Content-Type": JSON, **(headers or {})}
    return Response(status=status, body=dumps(value), headers=all_headers)


async def stream_array(request: BaseRequest, items: AsyncIterator[bytes]) -> StreamResponse:
    """Send a JSON array item by item: a large one needs no memory, and other requests have a turn.

    An error before the first item is raised; a later one breaks the answer off.
    """
    first = await anext(items, None)
    response = StreamResponse(headers={"Content-Type": JSON})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client disconnected
        waiting, size = [b"[", first or b""], 0
        async for item in items:
            waiting += (b",", item)
            size += len(item)
            if size > _CHUNK_BYTES:
                await response.write(b"".join(waiting))
                waiting, size = [], 0
        await response.write(b"".join((*waiting, b"]")))
        await response.write_eof()
    return response


def tagged_response(document: JsonObject) -> Response:
    """Return a response with a document and its etag."""
    return json_response(document, headers={"ETag": f'"{document["etag"]}"'})


def lent_response(item: Queued, body: object, content_type: str) -> Response:
    """Return an item of a queue that a service reads, with the token of its lock."""
    headers = {
        "Content-Type": content_type,
        "ETag": f'"{item.lock_token}"',
        "iothub-messagelocktoken": item.lock_token,
        "iothub-enqueuedtime": iso(item.enqueued),
    }
    return Response(body=dumps(body), headers=headers)


def message_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the usual form (seen on a real hub).

    Returns:
        `{"Message": "ErrorCode:<name>;<text>", "ExceptionMessage": "Tracking ID:…"}`; Node's SDK
        needs both parts of `Message` to be non-empty.
    """
    tracking = f"{secrets.token_hex(16)}-G:0-TimeStamp:{now:%m/%d/%Y %H:%M:%S}"
    message = f"ErrorCode:{error.name};{errors.error_text(error)}"
    return {"Message": message, "ExceptionMessage": f"Tracking ID:{tracking}"}


def twin_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of twins: the tracking id has no gateway (seen on a real hub)."""
    body = message_body(error, now)
    return {**body, "ExceptionMessage": body["ExceptionMessage"].replace("-G:0-", "-")}


def nested_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of direct methods: the document of the error, as text in the usual form.

    Returns:
        `{"Message": "<document as JSON text>", "ExceptionMessage": ""}` (seen on a real hub)
    """
    return {"Message": dumps(errors.error_document(error, now)).decode(), "ExceptionMessage": ""}


def module_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of module identities: the document of the error (seen on a real hub).

    If the device of the module is missing or disabled, the form is nested.
    """
    if isinstance(error, errors.IotHubUnauthorizedAccess):
        return nested_body(error, now)
    return errors.error_document(error, now)


def upload_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of file uploads: nested (seen on real hubs: azure-iot-sdk-c#197,
    azure-iot-sdk-csharp#2936).

    A hub without a storage answers in the usual form (IoT Hub docs: error 400014).
    """
    if isinstance(error, errors.DefaultStorageEndpointNotConfigured):
        return message_body(error, now)
    return nested_body(error, now)
