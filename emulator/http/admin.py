"""The emulator's own routes, under `/_emulator/`: the events of devices, and the sending of
cloud-to-device messages. A real hub has both over AMQP.
"""

from __future__ import annotations

import contextlib
from urllib.parse import quote

from aiohttp.web_response import StreamResponse

from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.hub import IotHub
from emulator.hub.messages.message import Message

# A stream without events sends a comment after this time, so that both ends keep it open.
_STREAM_ALIVE_SECONDS = 15

# The members of a message to send, with their system properties.
_SYSTEM = {
    "messageId": "message-id",
    "correlationId": "correlation-id",
    "userId": "user-id",
    "contentType": "content-type",
    "contentEncoding": "content-encoding",
    "expiryTimeUtc": "absolute-expiry-time",
}


async def read_events(hub: IotHub, request: Request) -> list[JsonObject] | StreamResponse:
    """`GET /_emulator/events?from=n&device=id`: the events from sequence number n on.

    200 with a JSON array. If the request accepts `text/event-stream`: live server-sent events,
    with the sequence numbers as ids. The stream continues after the event in `Last-Event-ID`.
    """
    start, device_id = _start(request), request.query.get("device")
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await _stream_events(hub, request, start, device_id)
    return [event.document() for event in hub.events.read(start, device_id)]


async def _stream_events(
    hub: IotHub, request: Request, start: int, device_id: str | None
) -> StreamResponse:
    response = StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client disconnected
        await response.write(b": events follow\n\n")
        while True:
            events = await hub.events.wait(start, device_id, seconds=_STREAM_ALIVE_SECONDS)
            for event in events:
                data = dumps(event.document())
                await response.write(b"id: %d\ndata: %s\n\n" % (event.number, data))
                start = event.number + 1
            if not events:
                await response.write(b": alive\n\n")
    return response


async def send_command(hub: IotHub, request: Request) -> None:
    """`POST /_emulator/devices/{id}/messages`: queue a cloud-to-device message; 204.

    The body is `{"body", "properties", "ack", "messageId", "correlationId", "userId",
    "contentType", "contentEncoding", "expiryTimeUtc"}`. A `body` that is not a string is sent as
    JSON. Every member is optional.
    """
    device_id = request.names["device_id"]
    hub.cloud_to_device.send(device_id, _message(device_id, await read_json(request)))


def _start(request: Request) -> int:
    last = request.headers.get("Last-Event-ID")
    text = request.query.get("from", "0") if last is None else last
    if not (text.isascii() and text.isdigit()):
        raise ArgumentInvalid(f"Invalid sequence number: {text}. Use a whole number from 0 up")
    return int(text[:18]) + (last is not None)


def _message(device_id: str, body: object) -> Message:
    document = members.document(body)
    for name in (*_SYSTEM, "properties", "ack"):
        if document.get(name, "") is None:
            raise ArgumentInvalid(f"{name} is null. Leave it out, or set a value")
    system = {"to": f"/devices/{quote(device_id, safe='')}/messages/deviceBound"}
    system |= {
        name: value
        for member, name in _SYSTEM.items()
        if (value := members.text(document, member)) is not None
    }
    properties: dict[str, str | None] = dict(members.texts(document, "properties") or {})
    if (ack := members.text(document, "ack")) is not None:
        properties["iothub-ack"] = ack
    content = document.get("body", "")
    payload = content.encode() if isinstance(content, str) else dumps(content)
    return Message(payload, system, properties)


_MESSAGES = "/_emulator/devices/{device_id}/messages"

ROUTES = (
    Route("GET", "/_emulator/events", Operation.READ_EVENTS, read_events, versioned=False),
    Route("POST", _MESSAGES, Operation.SEND_COMMAND, send_command, versioned=False),
)
